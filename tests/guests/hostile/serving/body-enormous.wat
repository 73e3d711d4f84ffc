;; Falls back to an answer with a body of eight megabytes.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store16 (i32.const 1040) (i32.const 200))
    (drop (memory.grow (i32.const 200)))
    (i32.store (i32.const 1052) (i32.const 8192))
    (i32.store (i32.const 1056) (i32.const 0x800000))
    (i32.const 1024))
