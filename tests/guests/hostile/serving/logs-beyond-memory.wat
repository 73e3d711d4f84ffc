;; Logs a line that lies outside of its memory.
(func $teapot (type $teapot)
    (call $log (i32.const 1) (i32.const 131000) (i32.const 9999))
    (i32.const 1024))
