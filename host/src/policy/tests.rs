//! Stories of rough guests.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::message::{Message, MessageId, Progress, Request, RouteName};

/// A message on its way, with this request.
pub(super) fn message_with(request: Arc<Request>) -> Message {
    Message {
        id: MessageId::from_bytes([7; 16]),
        route: RouteName::new("orders").expect("a good name"),
        request,
        idempotency_key: None,
        accepted_at: Timestamp::from_millis(0),
        progress: Progress::default(),
    }
}
