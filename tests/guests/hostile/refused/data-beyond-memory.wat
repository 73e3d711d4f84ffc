;; Fills its memory beyond the end before it comes to be.
(data (i32.const 131070) "abc")
