;; Gives a reason of four gigabytes, it says.
(func $teapot (type $teapot)
    (i32.store (i32.const 1064) (i32.const 2048))
    (i32.store (i32.const 1068) (i32.const 0xffffffff))
    (i32.const 1024))
