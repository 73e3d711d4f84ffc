;; Wants to see 65 header fields.
(func $configure (type $configure)
    (i32.store (i32.const 644) (i32.const 2048))
    (i32.store (i32.const 648) (i32.const 65))
    (i32.const 640))
