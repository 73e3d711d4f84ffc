;; Logs at a level that is none.
(func $teapot (type $teapot)
    (call $log (i32.const 9) (i32.const 0) (i32.const 0))
    (i32.const 1024))
