;; Stops when asked what it is.
(func $describe (type $describe) unreachable)
