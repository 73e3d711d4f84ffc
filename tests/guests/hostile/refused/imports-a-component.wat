;; A component that wants to be given another one.
(component (import "log" (component)))
