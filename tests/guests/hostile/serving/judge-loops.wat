;; Never returns.
(func $teapot (type $teapot)
    (loop $on (br $on))
    unreachable)
