;; Asks for an attribute, and loops when the host hands it over.
(data (i32.const 2048) "route")

(global $rough (mut i32) (i32.const 0))

(func $realloc (type $realloc)
    (if (global.get $rough) (then (loop $on (br $on))))
    (i32.const 8192))

(func $teapot (type $teapot)
    (global.set $rough (i32.const 1))
    (call $attribute (i32.const 2048) (i32.const 5) (i32.const 2060))
    (i32.const 1024))
