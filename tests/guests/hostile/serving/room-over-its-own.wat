;; Makes room for a body where its own things lie. It is its own loss: here, the manifest.
(func $realloc (type $realloc)
    (if (i32.gt_u (local.get 3) (i32.const 100)) (then
        (return (i32.const 512))))
    (i32.const 8192))
