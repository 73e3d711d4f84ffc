;; A component that wants what WASI offers.
(component (import "wasi:cli/environment@0.2.3" (instance)))
