;; Never says what a check-back answer means. Nobody asks it.
(global $hooks i32 (i32.const 10))

(func $settle (type $settle) (loop $on (br $on)) unreachable)
