;; Never says what it wants to see.
(func $configure (type $configure)
    (loop $on (br $on))
    unreachable)
