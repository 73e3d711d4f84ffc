;; Gives a verdict that is none.
(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 99))
    (i32.const 1024))
