;; Never answers the first question it is asked.
(func $judge (type $judge) (loop $on (br $on)) unreachable)
