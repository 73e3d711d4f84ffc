;; Logs empty lines without end.
(func $teapot (type $teapot)
    (loop $on (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (br $on))
    unreachable)
