;; Wants to log otherwise than the contract says.
(import "$root" "log" (func $shout (param i64)))
