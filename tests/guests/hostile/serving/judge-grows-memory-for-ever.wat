;; Wants ever more memory, and does not take no for an answer.
(func $teapot (type $teapot)
    (loop $on (drop (memory.grow (i32.const 1))) (br $on))
    unreachable)
