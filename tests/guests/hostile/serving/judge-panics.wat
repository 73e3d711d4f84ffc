;; Stops with last words, as the SDK lets a panic do.
(data (i32.const 2048) "panicked: a teapot\nERROR was not foreseen")

(func $teapot (type $teapot)
    (call $log (i32.const 3) (i32.const 2048) (i32.const 41))
    unreachable)
