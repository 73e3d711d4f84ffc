;; A component built by a contract that is yet to come.
(component (import "backstop:policy/types@7.0.0" (instance)))
