;; Wants a teapot tried again; and when no attempt is left, never says what to answer instead.
(global $hooks i32 (i32.const 6))

(func $teapot (type $teapot) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 1024))

(func $fall-back (type $fall-back) (loop $on (br $on)) unreachable)
