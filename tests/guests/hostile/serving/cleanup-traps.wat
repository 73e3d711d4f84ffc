;; Stops at the cleaning up after its decision.
(global $served (mut i32) (i32.const 0))

(func $teapot (type $teapot) (global.set $served (i32.const 1)) (i32.const 1024))

(func (export "cabi_post_judge") (param i32)
    (if (global.get $served) (then unreachable)))
