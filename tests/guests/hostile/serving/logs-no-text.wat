;; Logs a line that is no text.
(data (i32.const 2048) "\c3\28")

(func $teapot (type $teapot)
    (call $log (i32.const 1) (i32.const 2048) (i32.const 2))
    (i32.const 1024))
