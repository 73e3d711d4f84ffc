;; Falls back to an answer with 64 header fields that all have the same value, of a megabyte: 64 times more to copy than
;; it has memory.
(data (i32.const 3600) "x")

(func $teapot (type $teapot) (local $at i32) (local $n i32)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store16 (i32.const 1040) (i32.const 200))
    (drop (memory.grow (i32.const 200)))
    (loop $on
        (local.set $at (i32.add (i32.const 2048) (i32.shl (local.get $n) (i32.const 4))))
        (i32.store (local.get $at) (i32.const 3600)) (i32.store offset=4 (local.get $at) (i32.const 1))
        (i32.store offset=8 (local.get $at) (i32.const 8192)) (i32.store offset=12 (local.get $at) (i32.const 0x100000))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $n) (i32.const 64))))
    (i32.store (i32.const 1044) (i32.const 2048))
    (i32.store (i32.const 1048) (i32.const 64))
    (i32.const 1024))
