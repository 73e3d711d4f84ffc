;; Wants a memory with addresses of 64 bits.
(memory $other i64 1)
