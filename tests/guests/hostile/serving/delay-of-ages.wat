;; Retries after 10^18 milliseconds.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i64.store (i32.const 1040) (i64.const 1000000000000000000))
    (i32.const 1024))
