;; Stops before it comes to be.
(func $start unreachable)

(start $start)
