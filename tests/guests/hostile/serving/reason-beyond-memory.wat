;; Gives a reason whose bytes lie outside of its memory.
(func $teapot (type $teapot)
    (i32.store (i32.const 1064) (i32.const 131000))
    (i32.store (i32.const 1068) (i32.const 9999))
    (i32.const 1024))
