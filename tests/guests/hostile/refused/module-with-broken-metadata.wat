;; A module whose word about its contract is garbage.
(module
    (@custom "component-type:rough" "\00asm garbage")
    (func (export "judge") (result i32) (i32.const 0)))
