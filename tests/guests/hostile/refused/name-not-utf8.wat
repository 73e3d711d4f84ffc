;; Has a name that is no text.
(data (i32.const 2048) "\ff")

(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 2048)) (i32.store (i32.const 516) (i32.const 1))
    (i32.const 512))
