;; Wants an attribute put outside of its memory.
(data (i32.const 2048) "route")

(func $teapot (type $teapot)
    (call $attribute (i32.const 2048) (i32.const 5) (i32.const 0x7ffffff8))
    (i32.const 1024))
