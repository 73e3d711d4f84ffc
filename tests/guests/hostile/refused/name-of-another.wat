;; Calls itself otherwise than its file.
(data (i32.const 2048) "standard")

(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 2048)) (i32.store (i32.const 516) (i32.const 8))
    (i32.const 512))
