;; Never comes to be.
(func $start (loop $on (br $on)))

(start $start)
