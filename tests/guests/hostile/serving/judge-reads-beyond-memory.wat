;; Reads what is not its own.
(func $teapot (type $teapot)
    (i32.load (i32.const 0xfffffff0)))
