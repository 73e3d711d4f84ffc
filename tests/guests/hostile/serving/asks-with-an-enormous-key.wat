;; Asks for an attribute by a name of eight megabytes.
(func $teapot (type $teapot)
    (drop (memory.grow (i32.const 200)))
    (call $attribute (i32.const 8192) (i32.const 0x800000) (i32.const 2048))
    (i32.const 1024))
