;; Falls back to a route whose name could be none.
(data (i32.const 2048) "../elsewhere")

(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store8 (i32.const 1036) (i32.const 1))
    (i32.store (i32.const 1040) (i32.const 2048))
    (i32.store (i32.const 1044) (i32.const 12))
    (i32.const 1024))
