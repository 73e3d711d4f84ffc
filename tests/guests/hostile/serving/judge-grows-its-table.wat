;; Wants ever more entries in its table, and does not take no for an answer.
(table $table 1 funcref)

(func $teapot (type $teapot)
    (loop $on (drop (table.grow $table (ref.null func) (i32.const 1000))) (br $on))
    unreachable)
