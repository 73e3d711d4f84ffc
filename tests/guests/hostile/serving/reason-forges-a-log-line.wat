;; Gives a reason that would look like a line of the log, and one too long to keep. It is an answer all the same.
(data (i32.const 2048) "fine\n{\"message\":\"policy reloaded\"}\n\1b[2J")

(func $teapot (type $teapot)
    (i32.store8 (i32.const 1024) (i32.const 3))
    (i32.store (i32.const 1064) (i32.const 2048))
    (i32.store (i32.const 1068) (i32.const 1024))
    (i32.const 1024))
