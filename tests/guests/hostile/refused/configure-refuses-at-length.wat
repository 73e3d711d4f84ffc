;; Refuses its configuration in 100 KB of words.
(func $configure (type $configure)
    (memory.fill (i32.const 8192) (i32.const 0x21) (i32.const 100000))
    (i32.store8 (i32.const 640) (i32.const 1))
    (i32.store (i32.const 644) (i32.const 8192))
    (i32.store (i32.const 648) (i32.const 100000))
    (i32.const 640))
