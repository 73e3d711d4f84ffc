;; Stops when it is to make room for a body.
(func $realloc (type $realloc)
    (if (i32.gt_u (local.get 3) (i32.const 100)) (then
        unreachable))
    (i32.const 8192))
