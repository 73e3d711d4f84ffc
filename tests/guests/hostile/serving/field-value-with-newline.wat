;; Falls back to an answer with a header field that would smuggle in another.
(data (i32.const 2048) "\10\08\00\00\06\00\00\00\50\08\00\00\13\00\00\00")
(data (i32.const 2064) "x-code")
(data (i32.const 2128) "1\0d\0aset-cookie: mine")

(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 5))
    (i32.store8 (i32.const 1032) (i32.const 1))
    (i32.store16 (i32.const 1040) (i32.const 200))
    (i32.store (i32.const 1044) (i32.const 2048))
    (i32.store (i32.const 1048) (i32.const 1))
    (i32.const 1024))
