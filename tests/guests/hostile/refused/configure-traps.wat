;; Stops when it is configured.
(func $configure (type $configure)
    unreachable)
