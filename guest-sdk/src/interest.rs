//! What a policy wants to see, and a watch for reads of what it did not ask for.

use std::cell::{Cell, RefCell};

use crate::{Interest, Level, log};

/// How much of a body is shown to a policy that does not say.
const UNLESS_SAID: u32 = 4096;

impl Interest {
    /// Nothing but the status or the fault: the cheapest question.
    pub fn none() -> Self {
        Self { headers: Vec::new(), body_limit: 0, request_limit: 0 }
    }

    /// And this field of the response's header. Case does not matter. At most 64 names.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>) -> Self {
        let mut name = name.into();
        name.make_ascii_lowercase();
        if !self.headers.contains(&name) {
            self.headers.push(name);
        }
        self
    }

    /// And the first `bytes` of a response's body.
    #[must_use]
    pub fn body(self, bytes: u32) -> Self {
        Self { body_limit: bytes, ..self }
    }

    /// And the first `bytes` of the request's body, for [`Admit`](crate::Admit).
    #[must_use]
    pub fn request(self, bytes: u32) -> Self {
        Self { request_limit: bytes, ..self }
    }

    /// Whether it names this field of the response's header.
    pub(crate) fn names(&self, field: &str) -> bool {
        self.headers.iter().any(|known| known.eq_ignore_ascii_case(field))
    }
}

impl Default for Interest {
    /// No header field, and the first 4 KiB of a body.
    fn default() -> Self {
        Self::none().body(UNLESS_SAID).request(UNLESS_SAID)
    }
}

thread_local! {
    /// The interest of the policy being asked, once it is configured.
    static DECLARED: RefCell<Option<Interest>> = const { RefCell::new(None) };
    /// Whether something was read that is not in it.
    static UNDECLARED: Cell<bool> = const { Cell::new(false) };
}

/// Remembers what was declared.
pub(crate) fn declare(interest: &Interest) {
    DECLARED.set(Some(interest.clone()));
}

/// Whether something undeclared was read since this was last asked.
pub(crate) fn take_undeclared() -> bool {
    UNDECLARED.take()
}

/// A field that was looked for and not found: was it asked for at all?
pub(crate) fn missed_header(name: &str) {
    if DECLARED.with_borrow(|interest| interest.as_ref().is_some_and(|interest| !interest.names(name))) {
        complain(&format!("the header field `{name}` was read, but the policy's interest does not name it"));
    }
}

/// A response's body that was looked at and is empty: was it asked for at all?
pub(crate) fn missed_body() {
    if DECLARED.with_borrow(|interest| interest.as_ref().is_some_and(|interest| interest.body_limit == 0)) {
        complain("the body was read, but the policy's interest does not name it");
    }
}

/// The same of a request's body.
pub(crate) fn missed_request() {
    if DECLARED.with_borrow(|interest| interest.as_ref().is_some_and(|interest| interest.request_limit == 0)) {
        complain("the request's body was read, but the policy's interest does not name it");
    }
}

fn complain(text: &str) {
    UNDECLARED.set(true);
    log(Level::Warn, text);
}
