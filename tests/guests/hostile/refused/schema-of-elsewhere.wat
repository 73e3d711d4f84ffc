;; Gives a schema that lies on another machine.
(data (i32.const 2048) "{\"$ref\":\"http://127.0.0.1:9/schema.json\"}")

(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 768)) (i32.store (i32.const 516) (i32.const {name_len}))
    (i32.store (i32.const 520) (i32.const 896)) (i32.store (i32.const 524) (i32.const {version_len}))
    (i32.store8 (i32.const 536) (global.get $hooks))
    (i32.store (i32.const 528) (i32.const 2048)) (i32.store (i32.const 532) (i32.const 41))
    (i32.const 512))
