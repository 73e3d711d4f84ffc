;; A component that wants to log otherwise than the contract says.
(component
    (import "log" (func (param "shout" u64))))
