;; Retries after a delay that is neither given nor left out.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 2))
    (i32.const 1024))
