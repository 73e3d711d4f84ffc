//! The play of a risk check: a vendor that answers 200 with an error inside, and a caller that is never failed for it.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use http::StatusCode;
use serde_json::{Value, json};

use crate::message::{MessageId, State};

use super::super::asking;
use super::Stage;
use super::host::{Answer, Host, until};
use super::script::{Example, Script};
use super::stand_in::{Reply, StandIn, pauses};
use super::story::Story;

const EXAMPLE: Example =
    Example { name: "risk-control", text: include_str!("../../../../examples/risk-control.yaml"), files: &[] };

/// The pause between two attempts, in place of the example's.
const INTERVAL: Duration = Duration::from_millis(400);

/// The example with a vendor and a pager of the play's own.
pub(super) fn script(vendor: &str, pager: &str) -> Script {
    Script::of(EXAMPLE)
        .at("http://127.0.0.1:9001/", vendor)
        .at("http://127.0.0.1:9002", pager)
        .but("min_delay: 5s", "min_delay: 400ms")
        .but("max_delay: 5s", "max_delay: 400ms")
}

/// Plays it.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let (vendor, pager) = (stage.stand_in("vendor").await?, stage.stand_in("pager").await?);
    let host = stage.raise(&script(vendor.url(), pager.url())).await?;
    let mut scene = Scene { story: &mut stage.story, host, vendor, pager };
    scene.works().await?;
    scene.an_error_inside_a_200().await?;
    scene.a_wrong_structure().await?;
    scene.another_code().await?;
    let passed = scene.exhausted().await?;
    scene.found_and_resolved(passed).await?;
    scene.alarm().await
}

struct Scene<'s> {
    story: &'s mut Story,
    host: Host,
    vendor: StandIn,
    pager: StandIn,
}

fn failure(code: &str, request: &str) -> Reply {
    let error = json!({ "Code": code, "Message": "the model is not loaded" });
    Reply::json(StatusCode::OK, &json!({ "Response": { "Error": error, "RequestId": request } }))
}

fn decision(result: &str) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "Response": { "Result": result, "RequestId": "req-0" } }))
}

/// Whether a caller was given the default answer, and nothing else.
fn is_default(answer: &Answer) -> bool {
    answer.status == StatusCode::OK && answer.json() == json!({ "Response": { "Result": "pass" } })
}

impl Scene<'_> {
    /// A caller asks about a user, and waits.
    async fn ask(&self, user: u32) -> anyhow::Result<Answer> {
        self.host.post("/r/risk-check/v1/check", &json!({ "user": user, "amount": 1999 })).await
    }

    async fn works(&mut self) -> anyhow::Result<()> {
        self.story.step("The vendor works: 40 risk checks");
        self.vendor.answers(|_| decision("review"));
        let answers = try_join_all((0..40).map(|user| self.ask(user))).await?;
        let good = answers.iter().filter(|answer| answer.json()["Response"]["Result"] == "review").count();
        self.story.seen("callers", &format!("{good} × the vendor's own decision, `review`"));
        self.story.check("every caller got the vendor's own decision", good == 40);
        self.story.check("each was asked once", self.vendor.visits().len() == 40);
        let stored = self.host.ask("/v1/messages").await?;
        self.story.check("nothing was stored: what goes well is its caller's alone", stored["messages"] == json!([]));
        Ok(())
    }

    /// One call that the vendor answers with `replies` in turn: its message, and the pauses that the vendor saw.
    async fn called(&mut self, user: u32, replies: Vec<Reply>) -> anyhow::Result<(MessageId, Answer, Vec<Duration>)> {
        self.vendor.answers_in_turn(replies);
        let answer = self.ask(user).await?;
        let id = answer.id()?;
        let attempts = self.host.heard(id).await;
        self.story.journal(&attempts);
        self.story.seen("caller", &answer.shown());
        let visits = self.vendor.visits_of(id);
        self.story.check(
            &format!("attempts by the host's word: {}; requests by the vendor's: {}", attempts.len(), visits.len()),
            attempts.len() == visits.len(),
        );
        Ok((id, answer, pauses(&visits)))
    }

    async fn an_error_inside_a_200(&mut self) -> anyhow::Result<()> {
        self.story.step("The vendor answers 200 with `InternalError` inside, twice; then with its decision");
        let replies = vec![failure("InternalError", "req-1"), failure("InternalError", "req-2"), decision("reject")];
        let (_, answer, pauses) = self.called(101, replies).await?;
        let decided = answer.json()["Response"]["Result"] == "reject";
        self.story.check("the caller got the decision, at the third attempt", decided && pauses.len() == 2);
        let kept = pauses.iter().all(|pause| *pause >= INTERVAL);
        self.story.check("no attempt came before the interval was over", kept);
        Ok(())
    }

    async fn a_wrong_structure(&mut self) -> anyhow::Result<()> {
        self.story.step("The vendor answers 200 with a page of HTML, once; then with its decision");
        let (_, answer, pauses) =
            self.called(102, vec![Reply::text("<html>It works!</html>"), decision("pass")]).await?;
        let decided = answer.json()["Response"]["RequestId"] == "req-0";
        self.story.check("an answer of another structure is none: it was tried again", decided && pauses.len() == 1);
        Ok(())
    }

    async fn another_code(&mut self) -> anyhow::Result<()> {
        self.story.step("The vendor answers 200 with `AuthFailure` inside, a code that no attempt changes");
        let (_, answer, pauses) = self.called(103, vec![failure("AuthFailure", "req-9")]).await?;
        self.story.check("it was not tried again", pauses.is_empty());
        self.story.check("the caller got the default answer, `pass`, at once", is_default(&answer));
        Ok(())
    }

    async fn exhausted(&mut self) -> anyhow::Result<MessageId> {
        self.story.step("The vendor answers `InternalError`, however often it is asked");
        let (id, answer, pauses) = self.called(104, vec![failure("InternalError", "req-1f3a")]).await?;
        self.story.check("bounded: the first attempt and three retries", pauses.len() == 3);
        self.story.check("the caller is not failed: it got the default answer, `pass`", is_default(&answer));
        Ok(id)
    }

    async fn found_and_resolved(&mut self, id: MessageId) -> anyhow::Result<()> {
        self.story.step("Later, the vendor works again, and somebody looks at what was answered by default");
        let answered = self.host.listed(State::Answered).await?;
        for found in &answered {
            self.story.seen("host", &format!("{}  {}", found.id, found.reason));
        }
        let reasons = |text: &str| answered.iter().any(|found| found.reason.contains(text));
        self.story.check("both requests are found, by code and request id", {
            answered.len() == 2 && reasons("InternalError (request req-1f3a)") && reasons("AuthFailure (request req-9)")
        });
        let shown = self.host.ask(&format!("/v1/messages/{id}")).await?;
        let log =
            shown["journal"].as_array().and_then(|journal| journal.last()).map(|last| last["provenance"].to_string());
        let message = log.is_some_and(|log| log.contains("the model is not loaded"));
        self.story.check("with the vendor's own message, and the request", {
            message && shown["request"]["body"].as_str().is_some_and(|body| body.contains("104"))
        });
        self.vendor.answers(|_| decision("reject"));
        let resolved = self.host.tell("/v1/dead/redrive", &json!({ "ids": [id] })).await?;
        self.story.seen("person", &format!("asks for {id} again: {resolved}"));
        let message = self.host.until(id, State::Delivered).await?;
        let asked = self.vendor.visits_of(id).len();
        self.story.check("resolved: the vendor has decided after all, asked a fifth time", {
            message.summary.state == State::Delivered && asked == 5
        });
        Ok(())
    }

    /// What the alarm stands at: whether it fires, and the share of failed attempts.
    async fn alarm_now(&self) -> anyhow::Result<(bool, f64)> {
        let alarm = asking::now(self.host.admin()).await?.alarms.pop().context("the host has no alarm")?;
        Ok((alarm.firing, alarm.error_rate))
    }

    fn notices(&self) -> Vec<Value> {
        self.pager.visits().iter().filter_map(|visit| serde_json::from_slice(&visit.body).ok()).collect()
    }

    async fn alarm(&mut self) -> anyhow::Result<()> {
        let (firing, share) = self.alarm_now().await?;
        let percent = |share: f64| format!("{:.0} % of the attempts failed; the threshold is 20 %", share * 100.0);
        self.story.step("The vendor fails for everybody: `InternalError` to six callers at once");
        self.story.seen("host", &format!("before: {}", percent(share)));
        self.story.check("no alarm so far", !firing && self.notices().is_empty());
        self.vendor.answers(|_| failure("InternalError", "req-all"));
        let answers = try_join_all((200..206).map(|user| self.ask(user))).await?;
        self.story.check("every caller got the default answer", answers.iter().all(is_default));
        let told = until(async || Ok(self.notices().into_iter().find(|told| told["event"] == "alarm.fired"))).await?;
        let (firing, share) = self.alarm_now().await?;
        self.story.seen("host", &format!("now: {}", percent(share)));
        self.story.seen("pager", &brief(told.as_ref()));
        self.story.check("the alarm fired, and the pager was told", firing && told.is_some());

        self.story.step("The vendor works again, and 400 risk checks go well");
        self.vendor.answers(|_| decision("review"));
        for users in [0..100, 100..200, 200..300, 300..400] {
            try_join_all(users.map(|user| self.ask(user))).await?;
        }
        let told = until(async || Ok(self.notices().into_iter().find(|told| told["event"] == "alarm.cleared"))).await?;
        self.story.seen("pager", &brief(told.as_ref()));
        let (firing, share) = self.alarm_now().await?;
        self.story.seen("host", &percent(share));
        self.story.check("below half of its threshold the alarm cleared", !firing && told.is_some());
        self.story.check("the pager was told once of each", self.notices().len() == 2);
        Ok(())
    }
}

/// What the pager was told, in a few words.
fn brief(notice: Option<&Value>) -> String {
    let Some(notice) = notice else { return "was told nothing".to_owned() };
    let share = notice["error_rate"].as_f64().unwrap_or_default() * 100.0;
    format!("{}: {share:.0} % of {} attempts", notice["event"].as_str().unwrap_or_default(), notice["requests"])
}
