;; Calls itself for ever before it comes to be.
(func $start (call $start))

(start $start)
