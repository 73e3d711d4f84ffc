;; Retries with a scope that is none.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1048) (i32.const 77))
    (i32.const 1024))
