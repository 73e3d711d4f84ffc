;; Logs a line of eight megabytes.
(func $teapot (type $teapot)
    (drop (memory.grow (i32.const 200)))
    (call $log (i32.const 1) (i32.const 8192) (i32.const 0x800000))
    (i32.const 1024))
