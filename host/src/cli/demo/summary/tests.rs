//! The arithmetic notices what is lost.

use http::StatusCode;

use super::*;
use crate::clock::Timestamp;

struct Story {
    sent: Vec<Sent>,
    known: Known,
    records: Records,
}

impl Story {
    /// One message of each fate, all of them accounted for.
    fn good() -> Self {
        let mut story = Self { sent: Vec::new(), known: Known::new(), records: Records::default() };
        for (route, now_on, state) in [
            ("orders", "orders", State::Delivered),
            ("ledger", "ledger-backup", State::Delivered),
            ("legacy", "legacy", State::Dead),
            ("scans", "scans", State::Dropped),
            ("search", "search", State::Queued),
        ] {
            let id = story.id();
            story.sent.push(Sent { route, said: Said::Accepted(id) });
            story.known.insert(id, (now_on.to_owned(), state));
            if state == State::Delivered {
                story.records.accepted.insert(id);
            }
        }
        let answered = story.id();
        story.sent.push(Sent { route: "risk", said: Said::Ended(answered, State::Answered) });
        story.known.insert(answered, ("risk".to_owned(), State::Answered));
        let waited_for = story.id();
        story.sent.push(Sent { route: "risk", said: Said::Ended(waited_for, State::Delivered) });
        story.records.accepted.insert(waited_for);
        story.sent.push(Sent { route: "risk", said: Said::Refused(StatusCode::SERVICE_UNAVAILABLE) });
        story
    }

    fn id(&self) -> MessageId {
        MessageId::new(Timestamp::from_millis(self.sent.len() as u64))
    }

    fn id_on(&self, route: &str) -> MessageId {
        let said = self.sent.iter().find(|sent| sent.route == route).map(|sent| sent.said.clone());
        match said {
            Some(Said::Accepted(id) | Said::Ended(id, _)) => id,
            other => panic!("{route} has no message: {other:?}"),
        }
    }

    fn account(&self) -> Account {
        Account::of(&self.sent, &self.known, &self.records)
    }

    fn is_missed(&self) -> bool {
        let account = self.account();
        !account.is_good() && account.lost.len() == 1 && account.total().lost == 1
    }
}

#[test]
fn a_story_without_a_loss_adds_up() {
    let account = Story::good().account();
    assert!(account.is_good());
    let total = Tally { delivered: 3, answered: 1, dead: 1, dropped: 1, queued: 1, refused: 1, sent: 8, lost: 0 };
    assert_eq!(account.total(), total);
    assert_eq!(account.confirmed, 3);
    assert_eq!(account.rerouted, [(("ledger", "ledger-backup".to_owned()), 1)].into());
}

#[test]
fn an_accepted_message_that_the_host_does_not_know_is_lost() {
    let mut story = Story::good();
    let id = story.id_on("legacy");
    story.known.remove(&id);
    assert!(story.is_missed());
    assert_eq!(story.account().lost[0].id, Some(id));
}

#[test]
fn a_message_called_delivered_that_no_vendor_has_is_lost() {
    for route in ["orders", "ledger"] {
        let mut story = Story::good();
        let id = story.id_on(route);
        story.records.accepted.remove(&id);
        assert!(story.is_missed(), "{route}");
    }
}

#[test]
fn a_caller_told_otherwise_than_the_store_says_is_a_loss() {
    let mut story = Story::good();
    let id = story.id_on("risk");
    story.known.insert(id, ("risk".to_owned(), State::Dead));
    assert!(story.is_missed());
    story.known.remove(&id);
    assert!(story.is_missed());
}

#[test]
fn a_request_that_was_never_answered_is_a_loss() {
    let mut story = Story::good();
    story.sent.push(Sent { route: "risk", said: Said::Nothing("connection reset".to_owned()) });
    assert!(story.is_missed());
}

#[test]
fn a_repeat_that_cannot_be_recognised_is_told() {
    let mut story = Story::good();
    story.records.strange.push("order risk-1 came twice".to_owned());
    assert!(!story.account().is_good());
}

fn printed(account: &Account) -> Vec<String> {
    let circumstances = Circumstances {
        elapsed: std::time::Duration::from_secs(20),
        interrupted: false,
        failures: &BTreeMap::new(),
        policies: &super::super::board::Questions::default(),
        missed: 0,
        notices: &[],
    };
    lines(account, &circumstances).iter().map(|line| line.paint(usize::MAX, false)).collect()
}

#[test]
fn the_summary_fits_eighty_columns_and_lists_what_is_lost() {
    let mut story = Story::good();
    let id = story.id_on("legacy");
    story.known.remove(&id);
    let printed = printed(&story.account());
    assert!(printed.iter().all(|line| line.chars().count() <= 80), "{printed:#?}");
    assert!(printed.iter().any(|line| line.ends_with("lost: 1")));
    assert!(printed.iter().any(|line| line.contains(&id.to_string())));
}
