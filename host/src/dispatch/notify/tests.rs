//! Notices, sent to vendors that fail. Waiting happens on a clock that whoever waits moves on.

use super::super::vendor::{Act, HandClock, Vendor, until};
use super::*;

struct Stand {
    notifier: Notifier,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Stand {
    fn new() -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clients = Arc::new(Clients::new().unwrap());
        let notifier = Notifier::start(clients, HandClock::new(), &tasks, stop.clone());
        Self { notifier, tasks, stop }
    }

    fn tell(&self, vendor: &Vendor, path: &str, number: usize) {
        self.notifier.notify(Notice {
            about: "a test".to_owned(),
            url: vendor.url(path).parse().unwrap(),
            allow: Vec::new(),
            body: serde_json::json!({ "number": number }),
        });
    }
}

fn answer(status: u16) -> Act {
    Act::Answer(format!("HTTP/1.1 {status} S\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

fn numbers(vendor: &Vendor) -> Vec<String> {
    let body = |request: Vec<u8>| String::from_utf8(request).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    vendor.requests().into_iter().map(body).collect()
}

#[tokio::test]
async fn a_notice_is_posted_as_json() {
    let (stand, vendor) = (Stand::new(), Vendor::that([answer(204)]).await);
    stand.tell(&vendor, "/hook", 7);
    until("the notice", || vendor.requests().len() == 1).await;
    let request = vendor.request();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("content-type: application/json\r\n") && request.ends_with(r#"{"number":7}"#),
        "{request}"
    );
    assert_eq!(stand.notifier.lost(), 0);
}

#[tokio::test]
async fn a_notice_that_fails_is_tried_again_in_order() {
    let (stand, vendor) = (Stand::new(), Vendor::that([answer(503), answer(503), answer(200)]).await);
    stand.tell(&vendor, "/hook", 1);
    stand.tell(&vendor, "/hook", 2);
    until("both notices", || vendor.requests().len() == 4).await;
    assert_eq!(numbers(&vendor), [r#"{"number":1}"#, r#"{"number":1}"#, r#"{"number":1}"#, r#"{"number":2}"#]);
    assert_eq!(stand.notifier.lost(), 0);
}

#[tokio::test]
async fn a_notice_is_given_up_after_five_tries() {
    let (stand, vendor) = (Stand::new(), Vendor::that([answer(500)]).await);
    stand.tell(&vendor, "/hook", 1);
    until("the notice to be given up", || stand.notifier.lost() == 1).await;
    assert_eq!(vendor.requests().len(), 5);
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other() {
    let (stand, vendor) = (Stand::new(), Vendor::that([answer(200)]).await);
    let hanging = Vendor::that([Act::AnswerAndHang(Vec::new())]).await;
    for number in 0..10 {
        stand.tell(&hanging, "/hook", number);
    }
    stand.tell(&vendor, "/hook", 10);
    until("the other notice", || vendor.requests().len() == 1).await;
    assert_eq!(hanging.requests().len(), 1, "those to the same URL wait their turn");
}

#[tokio::test]
async fn too_many_notices_are_dropped_and_counted_without_waiting() {
    let (stand, hanging) = (Stand::new(), Vendor::that([Act::AnswerAndHang(Vec::new())]).await);
    for number in 0..QUEUED + 3 {
        stand.tell(&hanging, "/hook", number);
    }
    // The task has not run yet, so the queue alone took them.
    assert_eq!(stand.notifier.lost(), 3);
}

#[tokio::test]
async fn a_shutdown_ends_the_task_and_counts_what_is_left() {
    let (stand, hanging) = (Stand::new(), Vendor::that([Act::AnswerAndHang(Vec::new())]).await);
    stand.tell(&hanging, "/hook", 1);
    stand.tell(&hanging, "/hook", 2);
    until("the first to be sent", || hanging.requests().len() == 1).await;
    stand.stop.cancel();
    stand.tasks.close();
    stand.tasks.wait().await;
    assert_eq!(stand.notifier.lost(), 2);
}
