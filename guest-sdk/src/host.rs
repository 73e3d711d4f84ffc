//! The two functions the host offers a policy, and their stand-ins for native tests.

use crate::Level;

/// Writes a line into the record of the decision being made; the macros [`debug!`](crate::debug),
/// [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) format one. At most 32 lines of 512
/// bytes are kept for a decision. In a native test the lines are kept for [`test::log`](crate::test::log).
pub fn log(level: Level, text: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::log(level, text);
    #[cfg(not(target_family = "wasm"))]
    crate::test::record_line(level, text);
}

/// Reads something about the message being decided: `message-id`, `route`, `method`, `path`, `idempotency-key`, or
/// `header:NAME` for a field of the request. `None` for an unknown key or an absent field. In a native test it reads
/// what [`test::set_attribute`](crate::test::set_attribute) set.
pub fn attribute(key: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::attribute(key);
    #[cfg(not(target_family = "wasm"))]
    return crate::test::recall_attribute(key);
}

/// Writes a line of detail into the decision's record.
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::log($crate::Level::Debug, &::std::format!($($text)+)) };
}

/// Writes a line into the decision's record.
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::log($crate::Level::Info, &::std::format!($($text)+)) };
}

/// Writes a warning into the decision's record.
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::log($crate::Level::Warn, &::std::format!($($text)+)) };
}

/// Writes an error into the decision's record. It changes no verdict.
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::log($crate::Level::Error, &::std::format!($($text)+)) };
}
