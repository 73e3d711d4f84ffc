;; Gives a schema of two parts, each explained by the other.
(data (i32.const 2048) "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}")

(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 768)) (i32.store (i32.const 516) (i32.const {name_len}))
    (i32.store (i32.const 520) (i32.const 896)) (i32.store (i32.const 524) (i32.const {version_len}))
    (i32.store8 (i32.const 536) (global.get $hooks))
    (i32.store (i32.const 528) (i32.const 2048)) (i32.store (i32.const 532) (i32.const 80))
    (i32.const 512))
