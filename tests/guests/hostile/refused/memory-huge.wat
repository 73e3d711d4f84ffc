;; Wants four gigabytes of memory from the start.
(memory $memory 65536)
