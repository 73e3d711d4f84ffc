;; Stops at once.
(func $teapot (type $teapot)
    unreachable)
