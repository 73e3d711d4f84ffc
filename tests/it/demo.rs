//! `backstop demo --system NAME`: every system, played from beginning to end by the real binary. A play checks each of
//! its steps itself, so what is left to see is that it was played at all, and that its checks hold.

use std::net::TcpListener;
use std::process::{Output, Stdio};

use backstop_tests::artefacts::{binary, stock_policy, workspace};
use backstop_tests::rabbitmq::{PASSWORD, desk::Desk};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::rabbitmq::BROKER;

/// The command, to be run in the checkout, whose policies are built by now.
fn demo(arguments: &[&str]) -> Command {
    stock_policy("standard");
    let mut demo = Command::new(binary());
    demo.arg("demo").args(arguments).current_dir(workspace()).stdin(Stdio::null()).kill_on_drop(true);
    demo
}

async fn run(arguments: &[&str]) -> Output {
    demo(arguments).output().await.expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Plays a system, which must tell these lines in this order, and hold what it checks. Returns all that it said.
async fn plays(system: &str, more: &[&str], lines: &[&str]) -> String {
    let output = run(&[&["--system", system, "--plain"], more].concat()).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut rest = said.as_str();
    for line in lines {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("{line:?}, in this order, in:\n{said}")).1;
    }
    assert!(rest.contains(" checks hold\n") && !said.contains('✗') && !said.contains('\u{1b}'), "{said}");
    said
}

/// The queues that a play says it has.
fn queues(said: &str) -> Vec<String> {
    let words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let mut queues: Vec<String> = words.filter(|word| word.starts_with("backstop-demo-")).map(str::to_owned).collect();
    queues.sort();
    queues.dedup();
    queues
}

#[tokio::test]
async fn risk_control_is_played() {
    let lines = [
        "200 OK → retry in 400ms  InternalError",
        "retry in 400ms  answer of a wrong structure",
        "answered by fallback  AuthFailure",
        "answered by fallback  attempts exhausted: InternalError",
        "✓ both requests are found",
        "✓ the alarm fired",
        "✓ below half of its threshold the alarm cleared",
    ];
    plays("risk-control", &[], &lines).await;
}

#[tokio::test]
async fn async_retry_is_played() {
    let lines = [
        "✓ crm got it once",
        "timeout → retry",
        "503 Service Unavailable → retry",
        "delivered at attempt 4",
        "401 Unauthorized → fresh token",
        "raised to the Retry-After",
        "dead letter  attempts exhausted",
        "✓ no dead letter is left",
    ];
    plays("async-retry", &[], &lines).await;
}

#[tokio::test]
async fn reliable_message_is_played() {
    let lines = [
        "✓ confirmed, and delivered",
        "✓ it is the same transaction",
        "409 The other word was said before",
        "cancelled, and a later confirmation is refused",
        "its sender said so when it was asked (check 1)",
        "✓ gone",
        "parked, after 3 checks",
        "✓ it said `committed`",
        "✓ the consumer has a receipt of every order that was taken, once, and of no other",
    ];
    plays("reliable-message", &[], &lines).await;
}

#[tokio::test]
async fn event_pipeline_is_played() {
    let lines = [
        "→ billing, warehouse",
        "→ unknown",
        "does not fit the route's schema: /total",
        "retry in 1.0s",
        "retry in 2.0s",
        "400 Bad Request → dead letter",
        "✓ each publish has a uid of its own",
        "✓ delivered at last, under a uid of its own",
        "✓ linked to its original, which stays as it is",
    ];
    plays("event-pipeline", &[], &lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_is_played_at_a_broker_and_leaves_nothing_there() {
    let lines = [
        "not attempted → dropped  not JSON",
        "404 Not Found → dropped  unknown scan",
        "retry in 2.0s",
        "retry in 2.0s",
        "retry in 4.0s",
        "delay 8s lowered to max_delay",
        "✓ the owner was told which scan failed",
        "✓ both queues are empty",
    ];
    let said = plays("scan-platform", &["--broker", &BROKER.url()], &lines).await;
    assert!(!said.contains(PASSWORD), "{said}");
    let (desk, queues) = (Desk::at(&BROKER.url()).await, queues(&said));
    assert_eq!(queues.len(), 2, "{said}");
    for queue in queues {
        assert!(!desk.has(&queue).await, "{queue} is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_a_play_that_is_broken_off_leaves_nothing_at_the_broker() {
    let arguments = ["--system", "scan-platform", "--plain", "--broker", &BROKER.url()];
    let mut play = demo(&arguments).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(play.stdout.take().expect("its output")).lines();
    let mut said = String::new();
    while queues(&said).len() < 2 {
        said += &lines.next_line().await.expect("its output").expect("it tells its queues");
    }
    let desk = Desk::at(&BROKER.url()).await;
    for queue in queues(&said) {
        assert!(desk.has(&queue).await, "{queue} is there");
    }
    let pid = play.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().await.is_ok_and(|sent| sent.success()));
    // Whoever reads nothing more would keep it from ending in its own time.
    while let Ok(Some(_)) = lines.next_line().await {}
    assert_eq!(play.wait().await.expect("it ends").code(), Some(130));
    for queue in queues(&said) {
        assert!(!desk.has(&queue).await, "{queue} is left");
    }
}

#[tokio::test]
async fn scan_platform_without_a_broker_the_play_says_how_to_get_one() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let broker = format!("amqp://bob:hunter2@{closed}/");
    let output = run(&["--system", "scan-platform", "--plain", "--broker", &broker]).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        [&format!("could not connect to {closed}"), "apt-get install rabbitmq-server", "docker run", "--broker amqp://"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    for bad in [&broker.replace("amqp", "http"), "bob:hunter2"] {
        let output = run(&["--system", "scan-platform", "--broker", bad]).await;
        let why = self::said(&output);
        assert!(!output.status.success() && why.contains("--broker") && why.contains("amqp://"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn demo_what_it_does_not_know_is_refused_with_what_it_does() {
    let systems = ["risk-control", "async-retry", "reliable-message", "event-pipeline", "scan-platform"];
    for (arguments, complaints) in [
        (&["--system", "risk"][..], &systems[..]),
        (&["--system", "risk-control", "--seed", "2"], &["--seed", "--system"]),
        (&["--system", "risk-control", "--for", "10s"], &["--for", "--system"]),
        (&["--system", "risk-control", "--broker", "amqp://127.0.0.1"], &["scan-platform"]),
        (&["--broker", "amqp://127.0.0.1"], &["--system"]),
    ] {
        let output = run(arguments).await;
        let said = said(&output);
        assert!(!output.status.success(), "{arguments:?}: {said}");
        for complaint in complaints {
            assert!(said.contains(complaint), "{arguments:?}: {complaint} in {said}");
        }
    }
}
