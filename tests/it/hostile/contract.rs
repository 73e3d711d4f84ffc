//! Guests of a contract that is not quite ours.
