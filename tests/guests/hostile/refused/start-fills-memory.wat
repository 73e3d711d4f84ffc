;; Fills its memory again and again before it comes to be.
(memory $memory 256)

(func $start (loop $on (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x1000000)) (br $on)))

(start $start)
