;; Wants what WASI offers.
(import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
