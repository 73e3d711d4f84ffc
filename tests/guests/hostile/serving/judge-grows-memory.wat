;; Wants ever more memory, and gives up when there is none.
(func $teapot (type $teapot)
    (loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    unreachable)
