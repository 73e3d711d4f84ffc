//! RabbitMQ, both ways, at a real broker: the source and the destination by themselves, and through the host.

mod publishing;
mod restarts;
mod settling;
pub(crate) mod stage;
mod subscribing;
mod unbearable;

use backstop_tests::artefacts::guest;
use backstop_tests::rabbitmq::desk::{Desk, giving_up};
use backstop_tests::{Host, Received, Reply, Setup, Vendor, eventually, ok, status};
use lapin::BasicProperties;

pub(crate) use stage::BROKER;
use stage::fresh;

const GOOD: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-1f2e3d4c5b6a"}"#;
const UNKNOWN: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-000000000404"}"#;
const BROKEN: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-000000000500"}"#;

/// The engine: it knows one scan, not the other, and always fails on the third.
fn engine(request: &Received) -> Reply {
    match request.text().as_str() {
        GOOD => ok(),
        UNKNOWN => status(404),
        _ => status(500),
    }
}

async fn is_empty(desk: &Desk, queue: &str) {
    eventually("the queue to be empty", async || (desk.ready(queue).await == 0).then_some(())).await;
}

/// Page requests that fail more often than the queue allows come back as errors of their owner's, however long that
/// takes, and whatever the owner says meanwhile: the loop is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_what_the_queue_gives_up_is_marked_as_errored_by_its_owner() {
    let (desk, pages, dead) = (Desk::at(&BROKER.url()).await, fresh("pages"), fresh("dead-pages"));
    desk.quorum_queue(&dead, &[]).await;
    desk.quorum_queue(&pages, &giving_up(2, &dead)).await;

    let refusals = [401, 503, 400, 403, 500, 422, 429, 302, 405];
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(engine);
    let owner = Vendor::answering(refusals.map(status).into_iter().chain([ok()])).await;
    let url = BROKER.url();
    let sources = format!(
        "{{ pages: {{ route: pages, settle: on_delivery, rabbitmq: {{ url: '{url}', queue: {pages} }} }},
            errors: {{ route: errored, rabbitmq: {{ url: '{url}', queue: {dead} }} }} }}"
    );
    let host = Setup::routes(&format!(
        "
        pages:
          destination: '{vendor}'
          policy: scan-platform
          retry: {{ max_attempts: 9, min_delay: 1ms, max_delay: 20ms, jitter: none }}
        errored:
          destination: '{owner}'
          policy: scan-platform
          policy_config: {{ refused: retry }}
          retry: {{ max_attempts: unlimited, min_delay: 1ms, max_delay: 20ms, jitter: none }}
        "
    ))
    .setting("sources", &sources)
    .start()
    .await;
    for body in ["scan, please", UNKNOWN, GOOD, BROKEN] {
        desk.publish("", &pages, body.as_bytes(), BasicProperties::default().with_delivery_mode(2)).await;
    }

    let marked = owner.receives(refusals.len() + 1).await;
    eventually("the error to be marked", async || (host.messages("delivered").await.len() == 1).then_some(())).await;
    assert!(marked.iter().all(|request| request.text() == BROKEN), "only the one that failed for good");
    assert!(marked[0].header("x-death").contains("delivery_limit"), "{}", marked[0].header("x-death"));
    for queue in [&pages, &dead] {
        is_empty(&desk, queue).await;
    }
    assert!(host.messages("dead").await.is_empty(), "nothing is left to a person");
    let attempts = |body: &str| vendor.received().iter().filter(|request| request.text() == body).count();
    assert_eq!((attempts(GOOD), attempts(UNKNOWN), attempts("scan, please")), (1, 1, 0));
    assert_eq!(attempts(BROKEN), 3, "the first delivery and two more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_route_delivers_to_an_exchange_once_the_broker_confirms() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("orders"));
    desk.quorum_queue(&queue, &[]).await;
    let url = BROKER.url();
    let host = Host::start(&format!(
        "
        orders: {{ destination: '{url}?routing_key={queue}' }}
        nowhere: {{ destination: '{url}?routing_key=no-such-queue' }}
        "
    ))
    .await;
    let id = host.accept("/r/orders", "hello").await;
    host.until(&id, "delivered").await;
    let taken = eventually("the message", async || desk.take(&queue).await).await;
    assert_eq!(taken.data, b"hello");
    assert_eq!(taken.properties.message_id().as_ref().map(|id| id.to_string()), Some(id));

    let nowhere = host.accept("/r/nowhere", "hello").await;
    let lost = host.until(&nowhere, "dead").await;
    assert_eq!(lost["journal"][0]["outcome"]["status"], 404, "{lost}");
    assert!(!host.log().contains(backstop_tests::rabbitmq::PASSWORD));
}

/// What the broker knows reaches the policy: it gives a message up by the number of its deliveries, and drops it where
/// it comes out of the dead letters, by the reason it got there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_policy_decides_by_deliveries_and_by_the_reason_of_a_dead_letter() {
    let (desk, pages, dead) = (Desk::at(&BROKER.url()).await, fresh("pages"), fresh("dead-pages"));
    desk.quorum_queue(&dead, &[]).await;
    desk.quorum_queue(&pages, &giving_up(9, &dead)).await;
    let (vendor, owner) = (Vendor::answering([status(503)]).await, Vendor::answering([ok()]).await);
    let url = BROKER.url();
    let sources = format!(
        "{{ pages: {{ route: pages, settle: on_delivery, rabbitmq: {{ url: '{url}', queue: {pages} }} }},
            dead: {{ route: owner, rabbitmq: {{ url: '{url}', queue: {dead} }} }} }}"
    );
    let host = Setup::routes(&format!(
        "
        pages: {{ destination: '{vendor}', policy: broker-wise, retry: {{ max_attempts: 9, min_delay: 1ms }} }}
        owner: {{ destination: '{owner}', policy: broker-wise }}
        "
    ))
    .policy("broker-wise", guest("broker-wise"))
    .setting("sources", &sources)
    .start()
    .await;
    desk.publish("", &pages, b"page", BasicProperties::default().with_delivery_mode(2)).await;
    let given_up = eventually("our dead letter", async || host.messages("dead").await.into_iter().next()).await;
    assert_eq!(given_up["reason"], "given up after 2 earlier deliveries");
    assert_eq!(vendor.received().len(), 3);

    let dropped = eventually("it to be dropped", async || host.messages("dropped").await.into_iter().next()).await;
    assert_eq!((&dropped["route"], &dropped["reason"]), (&"owner".into(), &"rejected before".into()));
    // One that nobody rejected is sent from there.
    desk.publish("", &dead, b"by hand", BasicProperties::default().with_delivery_mode(2)).await;
    assert_eq!(owner.receives(1).await[0].text(), "by hand");
}

/// Who watches over the sources sees why one stands still, and what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_source_of_a_queue_that_does_not_count_is_seen_to_have_given_up() {
    let (desk, pages) = (Desk::at(&BROKER.url()).await, fresh("classic-pages"));
    desk.classic_queue(&pages).await;
    let vendor = Vendor::answering([status(503)]).await;
    let url = BROKER.url();
    let host = Setup::routes(&format!("pages: {{ destination: '{vendor}', retry: {{ min_delay: 1ms }} }}"))
        .setting(
            "sources",
            &format!(
                "{{ pages: {{ route: pages, settle: on_delivery, rabbitmq: {{ url: '{url}', queue: {pages} }} }} }}"
            ),
        )
        .start()
        .await;
    desk.publish("", &pages, b"page", BasicProperties::default().with_delivery_mode(2)).await;
    let why = host.source_until("gave_up").await["last_error"]["why"].to_string();
    assert!(why.contains("needs a quorum queue"), "{why}");
    assert!(host.says("a source gave up", 1).await.concat().contains("needs a quorum queue"));
    assert_eq!(vendor.received().len(), 1);
    eventually("the message to be the broker's", async || (desk.ready(&pages).await == 1).then_some(())).await;
}
