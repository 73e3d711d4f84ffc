;; Wants memory that it could share with threads.
(memory $memory 2 2 shared)
