;; Gives a reason that is no text.
(data (i32.const 2048) "no \ff")

(func $teapot (type $teapot)
    (i32.store (i32.const 1064) (i32.const 2048))
    (i32.store (i32.const 1068) (i32.const 4))
    (i32.const 1024))
