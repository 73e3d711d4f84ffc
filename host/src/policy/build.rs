//! Guest crates become policies.
