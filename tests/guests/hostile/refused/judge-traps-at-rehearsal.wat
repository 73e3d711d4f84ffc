;; Stops at the first question it is asked.
(func $judge (type $judge) unreachable)
