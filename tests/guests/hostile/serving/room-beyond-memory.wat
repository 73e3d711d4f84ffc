;; Makes room for a body outside of its memory.
(func $realloc (type $realloc)
    (if (i32.gt_u (local.get 3) (i32.const 100)) (then
        (return (i32.const 0x7ffffff0))))
    (i32.const 8192))
