;; Falls back to an answer with four thousand million header fields, it says.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store16 (i32.const 1040) (i32.const 200))
    (i32.store (i32.const 1044) (i32.const 2048))
    (i32.store (i32.const 1048) (i32.const 0xffffffff))
    (i32.const 1024))
