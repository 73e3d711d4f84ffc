;; Wants memory that it could share with threads.
(component (core module (memory 1 1 shared)))
