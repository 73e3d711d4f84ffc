;; Stops with last words when it is configured.
(data (i32.const 2048) "panicked: no such a config")

(func $configure (type $configure)
    (call $log (i32.const 3) (i32.const 2048) (i32.const 26))
    unreachable)
