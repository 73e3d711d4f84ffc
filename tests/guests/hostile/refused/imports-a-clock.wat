;; Wants a function that the contract might have, and has not.
(import "$root" "now" (func (result i64)))
