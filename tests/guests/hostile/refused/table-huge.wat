;; Wants a table of ten million entries from the start.
(table $table 10000000 funcref)
