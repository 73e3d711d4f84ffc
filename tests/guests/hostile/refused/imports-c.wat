;; Wants a function of C that nobody has.
(import "env" "gettimeofday" (func (param i32 i32) (result i32)))
