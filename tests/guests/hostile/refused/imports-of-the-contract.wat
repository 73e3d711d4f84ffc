;; Wants an interface that looks like the contract's, and is none of it.
(import "backstop:policy/clock@0.1.0" "now" (func (result i64)))
