;; Wants a teapot tried again; and when no attempt is left, answers with status 0.
(global $hooks i32 (i32.const 6))

(data (i32.const 2048) "\01")

(func $teapot (type $teapot) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 1024))

(func $fall-back (type $fall-back) (i32.const 2048))
