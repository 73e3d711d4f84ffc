;; Wants to see a header field that cannot be.
(data (i32.const 2048) "\10\08\00\00\05\00\00\00")
(data (i32.const 2064) "x\0d\0ay:")

(func $configure (type $configure)
    (i32.store (i32.const 644) (i32.const 2048))
    (i32.store (i32.const 648) (i32.const 1))
    (i32.const 640))
