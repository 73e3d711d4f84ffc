;; Gives a reason of eight megabytes, all of which are there.
(func $teapot (type $teapot)
    (drop (memory.grow (i32.const 200)))
    (i32.store (i32.const 1064) (i32.const 8192))
    (i32.store (i32.const 1068) (i32.const 0x800000))
    (i32.const 1024))
