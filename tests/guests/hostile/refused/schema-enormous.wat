;; Gives a schema of eight megabytes.
(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 768)) (i32.store (i32.const 516) (i32.const {name_len}))
    (i32.store (i32.const 520) (i32.const 896)) (i32.store (i32.const 524) (i32.const {version_len}))
    (i32.store8 (i32.const 536) (global.get $hooks))
    (drop (memory.grow (i32.const 200)))
    (i32.store (i32.const 528) (i32.const 8192)) (i32.store (i32.const 532) (i32.const 0x800000))
    (i32.const 512))
