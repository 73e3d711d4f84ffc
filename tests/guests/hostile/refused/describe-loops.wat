;; Never says what it is.
(func $describe (type $describe) (loop $on (br $on)) unreachable)
