;; Wants 17 MiB of memory from the start, a megabyte more than a route allows by default.
(memory $memory 272)
