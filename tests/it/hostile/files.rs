//! What is no guest at all.
