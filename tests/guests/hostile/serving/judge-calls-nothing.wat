;; Calls a function that is not there.
(table $table 4 funcref)

(func $teapot (type $teapot)
    (call_indirect $table (type $teapot) (i32.const 3)))
