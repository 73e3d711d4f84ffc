;; Logs long lines without end.
(func $teapot (type $teapot)
    (loop $on (call $log (i32.const 1) (i32.const 8192) (i32.const 100000)) (br $on))
    unreachable)
