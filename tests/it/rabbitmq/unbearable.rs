//! What publishers can send that lapin cannot bear: each costs itself alone.

use backstop::ingress::source::{Brought, Settle, Stored};
use lapin::BasicProperties;

use super::stage::{BROKER, Running, Told, field, fresh, source, until};
use backstop_tests::rabbitmq::desk::Desk;
use backstop_tests::rabbitmq::rough::{Rough, long, nested, short};

/// What is brought of a message with such headers (the inside of the table), published roughly; and that the source is
/// still there for the next one.
async fn brought_with(content_type: &[u8], table: &[u8], key: &[u8]) -> Brought {
    let (desk, queue, exchange) = (Desk::at(&BROKER.url()).await, fresh("rough"), fresh("fanout"));
    desk.quorum_queue(&queue, &[]).await;
    desk.fanout(&exchange, &queue).await;
    let intake = Told::storing(|_| Stored::Yes);
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &intake);
    let mut rough = Rough::at(BROKER.port()).await;
    // Content type and headers.
    let properties = [vec![0xa0, 0x00], short(content_type), long(table)].concat();
    rough.publish(exchange.as_bytes(), key, &properties, b"first").await;
    desk.publish("", &queue, b"second", BasicProperties::default()).await;
    until("both are stored", async || intake.brought().len() == 2).await;
    running.stop().await;
    let mut brought = intake.brought();
    brought.sort_by(|one, other| one.body.cmp(&other.body));
    assert_eq!(brought.iter().map(|brought| &*brought.body).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
    brought.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_names_that_are_not_utf_8_come_with_question_marks() {
    let table =
        [short(b"x-\xc3\x28"), b"S".to_vec(), long(b"\xff"), short(b"x-good"), b"S".to_vec(), long(b"yes")].concat();
    let brought = brought_with(b"text/\xff", &table, b"caf\xe9").await;
    assert_eq!(field(&brought, "broker-subject"), "caf?");
    assert_eq!(field(&brought, "content-type"), "text/?");
    assert_eq!(field(&brought, "x-good"), "yes");
    // "x-?(" is no field's name.
    assert_eq!(field(&brought, "broker-headers-dropped"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_headers_nested_without_end_do_not_end_the_process() {
    let inside = nested(20_000);
    let table = [short(b"deep"), inside].concat();
    let brought = brought_with(b"text/plain", &table, b"deep").await;
    assert!(brought.headers.contains_key("broker-headers-dropped"), "{:?}", brought.headers);
    let table = [short(b"deep"), nested(1000)].concat();
    let brought = brought_with(b"text/plain", &table, b"deep").await;
    assert!(brought.headers.contains_key("broker-headers-unreadable"), "{:?}", brought.headers);
}
