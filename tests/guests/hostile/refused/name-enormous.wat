;; Has a name of 100 KB.
(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 8192)) (i32.store (i32.const 516) (i32.const 100000))
    (i32.const 512))
