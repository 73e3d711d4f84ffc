;; Says that its decision lies outside of its memory.
(func $teapot (type $teapot)
    (i32.const 0x7ffffff8))
