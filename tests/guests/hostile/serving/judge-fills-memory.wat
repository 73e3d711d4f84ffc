;; Fills all the memory it may have, again and again: much work for few instructions.
(func $teapot (type $teapot)
    (drop (memory.grow (i32.const 254)))
    (loop $on (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x1000000)) (br $on))
    unreachable)
