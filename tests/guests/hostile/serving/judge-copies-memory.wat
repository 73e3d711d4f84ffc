;; Moves all the memory it may have, again and again: much work for few instructions.
(func $teapot (type $teapot)
    (drop (memory.grow (i32.const 254)))
    (loop $on (memory.copy (i32.const 0) (i32.const 1) (i32.const 0xffffff)) (br $on))
    unreachable)
