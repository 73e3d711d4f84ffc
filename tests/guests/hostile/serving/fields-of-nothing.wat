;; Falls back to an answer with half a million header fields without a name or a value: the list is the load.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store16 (i32.const 1040) (i32.const 200))
    (drop (memory.grow (i32.const 200)))
    (i32.store (i32.const 1044) (i32.const 8192))
    (i32.store (i32.const 1048) (i32.const 500000))
    (i32.const 1024))
