;; Asks for attributes without end.
(data (i32.const 2048) "weather")

(func $teapot (type $teapot)
    (loop $on (call $attribute (i32.const 2048) (i32.const 7) (i32.const 2060)) (br $on))
    unreachable)
