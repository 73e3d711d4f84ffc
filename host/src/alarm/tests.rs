//! Alarms over routes: what is said, to whom, how often.

use tokio_util::task::TaskTracker;

use super::*;
use crate::dispatch::Clients;
use crate::dispatch::vendor::{HandClock, Vendor, route_to, until};

const START: u64 = 1_700_000_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn name() -> RouteName {
    RouteName::new("vendor").unwrap()
}

/// The route `vendor`, with an alarm: half of at least four attempts within a minute.
fn route(notify: Option<String>) -> Arc<Route> {
    let mut route = route_to("http://vendor.test/");
    route.alarm = Some(Alarm {
        error_rate: 0.5,
        window: Duration::from_secs(60),
        min_requests: 4,
        notify: notify.map(|url| url.parse().unwrap()),
    });
    Arc::new(route)
}

/// The alarm of that route.
fn alarms(notify: Option<String>) -> Alarms {
    let clients = Arc::new(Clients::new().unwrap());
    let notifier = Notifier::start(clients, HandClock::new(), &TaskTracker::new(), CancellationToken::new());
    Alarms::new([&route(notify)], notifier)
}

fn fail(alarms: &Alarms, attempts: usize, now: u64) {
    (0..attempts).for_each(|_| alarms.record(&name(), at(now), true));
}

#[tokio::test]
async fn it_fires_and_clears_without_traffic_and_tells_each_once() {
    let vendor = Vendor::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let alarms = alarms(Some(vendor.url("/hook")));
    fail(&alarms, 20, 0);
    assert!(alarms.current()[0].firing);
    alarms.tick(at(59_000));
    assert!(alarms.current()[0].firing);
    for second in 61..70 {
        alarms.tick(at(second * 1000));
    }
    assert!(!alarms.current()[0].firing);

    until("both notices", || vendor.requests().len() == 2).await;
    let body = |request: &[u8]| -> serde_json::Value {
        let text = String::from_utf8_lossy(request);
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert_eq!(
        body(&vendor.requests()[0]),
        serde_json::json!({
            "event": "alarm.fired", "route": "vendor", "firing": true, "since": "2023-11-14T22:13:20.000Z",
            "error_rate": 1.0, "threshold": 0.5, "window_ms": 60_000, "requests": 4,
        })
    );
    assert_eq!(body(&vendor.requests()[1])["event"], "alarm.cleared");
}

#[tokio::test]
async fn it_shows_where_it_stands() {
    let alarms = alarms(None);
    assert_eq!(alarms.current()[0].since, None);
    fail(&alarms, 4, 5);
    (0..4).for_each(|_| alarms.record(&name(), at(6), false));
    let expected = AlarmStatus {
        route: name(),
        firing: true,
        since: Some(at(5)),
        error_rate: 0.5,
        threshold: 0.5,
        window_ms: 60_000,
        requests: 8,
    };
    assert_eq!(alarms.current(), [expected]);
}

#[tokio::test]
async fn routes_without_an_alarm_are_not_watched() {
    let alarms = alarms(None);
    let other = RouteName::new("other").unwrap();
    (0..100).for_each(|_| alarms.record(&other, at(0), true));
    assert_eq!(alarms.current().len(), 1);
    assert!(!alarms.current()[0].firing);
}

#[tokio::test]
async fn its_task_clears_it_and_ends_when_told() {
    let alarms = Arc::new(alarms(None));
    let (clock, stop) = (HandClock::new(), CancellationToken::new());
    (0..4).for_each(|_| alarms.record(&name(), clock.now(), true));
    assert!(alarms.current()[0].firing);
    let tasks = TaskTracker::new();
    let (watched, token) = (Arc::clone(&alarms), stop.clone());
    tasks.spawn(async move { watched.run(clock.as_ref(), token).await });
    until("the alarm to clear", || !alarms.current()[0].firing).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_reload_leaves_an_alarm_ringing_that_measures_what_it_measured() {
    let vendor = Vendor::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let alarms = alarms(None);
    fail(&alarms, 4, 0);
    let before = alarms.current();
    // Its destination changes, and who is told; not what is an alarm.
    let mut changed = Route::clone(&route(Some(vendor.url("/hook"))));
    changed.concurrency += 1;
    alarms.set_routes([&Arc::new(changed)]);
    assert_eq!(alarms.current(), before, "it rings, and has not begun anew");
    alarms.tick(at(120_000));
    assert!(!alarms.current()[0].firing);
    until("the notice that it is over", || vendor.requests().len() == 1).await;
}

#[tokio::test]
async fn a_reload_says_of_an_alarm_that_goes_while_it_rings_that_it_is_over() {
    let vendor = Vendor::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let alarms = alarms(Some(vendor.url("/hook")));
    fail(&alarms, 4, 0);
    alarms.set_routes([]);
    assert_eq!(alarms.current(), []);
    fail(&alarms, 4, 0);
    until("both notices", || vendor.requests().len() == 2).await;
    let last = String::from_utf8_lossy(&vendor.requests()[1]).into_owned();
    assert!(last.contains("\"event\":\"alarm.cleared\"") && last.contains("\"firing\":false"), "{last}");

    // Another threshold is another alarm: it begins with nothing measured.
    let mut other = Route::clone(&route(None));
    other.alarm = other.alarm.map(|alarm| Alarm { error_rate: 0.9, ..alarm });
    alarms.set_routes([&route(None)]);
    fail(&alarms, 4, 0);
    alarms.set_routes([&Arc::new(other)]);
    assert_eq!((alarms.current()[0].firing, alarms.current()[0].requests), (false, 0));
}
