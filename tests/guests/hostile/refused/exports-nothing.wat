;; A component with nothing in it: it has no world.
(component)
