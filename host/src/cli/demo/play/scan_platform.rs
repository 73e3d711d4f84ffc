//! The play of services over message queues, at a real broker: what an engine does not take, the queue gives up, and its
//! owner is told.

use anyhow::Context as _;
use http::StatusCode;
use lapin::types::AMQPValue;

use crate::config::Secret;
use crate::message::{AttemptRecord, State};

use super::Stage;
use super::broker::{self, Queues};
use super::host::{Host, until};
use super::script::{Example, Script};
use super::stand_in::{Reply, StandIn, Visit, pauses};
use super::story::Story;

const EXAMPLE: Example =
    Example { name: "scan-platform", text: include_str!("../../../../examples/scan-platform.yaml"), files: &[] };

/// The queue's `x-delivery-limit`: deliveries after the first.
const LIMIT: i32 = 2;

const UNKNOWN: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-000000000404"}"#;
const GOOD: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-000000000200"}"#;
const HOPELESS: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-000000000500"}"#;

/// The example with an engine, an owner, a broker and two queues of the play's own.
pub(super) fn script(engine: &str, owner: &str, broker: &Secret, [pages, dead]: [&str; 2]) -> Script {
    Script::of(EXAMPLE)
        .at("http://127.0.0.1:9001/pages", &format!("{engine}/pages"))
        .at("http://127.0.0.1:9001/scans", &format!("{owner}/scans"))
        .at("amqp://127.0.0.1:5672/", "${env:BROKER_URL}")
        .variable("BROKER_URL", broker.clone())
        .at("queue: dead-pages", &format!("queue: {dead}"))
        .at("queue: pages\n", &format!("queue: {pages}\n"))
        .but("max_delay: 60s", "max_delay: 4s")
        .without("changed-scans", "it follows a table, in a Postgres of yours")
}

/// Plays it.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let url = stage.broker.clone().unwrap_or_else(|| Secret::new(broker::DEFAULT));
    let queues = stage.queues.insert(Queues::at(&url).await?);
    let (pages, dead) = (queues.named("pages"), queues.named("dead-pages"));
    queues.declare(&dead, &[]).await?;
    let limit = ("x-delivery-limit", AMQPValue::LongInt(LIMIT));
    let exchange = ("x-dead-letter-exchange", broker::text(""));
    queues.declare(&pages, &[limit, exchange, ("x-dead-letter-routing-key", broker::text(&dead))]).await?;

    let (engine, owner) = (stage.stand_in("engine").await?, stage.stand_in("owner").await?);
    let script = script(engine.url(), owner.url(), &url, [&pages, &dead]);
    let host = stage.raise(&script).await?;
    let queues = stage.queues.as_ref().context("the queues are gone")?;
    let mut scene = Scene { story: &mut stage.story, host, engine, owner, queues, pages, dead, told: 0 };
    scene.subscribed().await?;
    scene.malformed().await?;
    scene.unknown().await?;
    scene.stumbling().await?;
    scene.given_up().await?;
    scene.nothing_is_left().await
}

struct Scene<'s> {
    story: &'s mut Story,
    host: Host,
    engine: StandIn,
    owner: StandIn,
    queues: &'s Queues,
    pages: String,
    dead: String,
    /// Attempts on the route to the engine that were told so far.
    told: usize,
}

impl Scene<'_> {
    /// A page request is published; tells what the host made of its first `deliveries`.
    async fn published(&mut self, body: &str, deliveries: usize) -> anyhow::Result<Vec<AttemptRecord>> {
        self.story.seen("publisher", &format!("{body} to {}", self.pages));
        self.queues.publish(&self.pages, body).await?;
        let mut heard = self.host.heard_on("engine", self.told + deliveries).await;
        let new = heard.split_off(self.told.min(heard.len()));
        self.told += new.len();
        self.story.journal(&new);
        Ok(new)
    }

    /// What reached the engine with this body.
    fn seen_by_engine(&self, body: &str) -> Vec<Visit> {
        self.engine.visits().into_iter().filter(|visit| visit.body == body.as_bytes()).collect()
    }

    async fn subscribed(&mut self) -> anyhow::Result<()> {
        self.story.step("Two quorum queues: page requests, and what the first one gives up");
        let limit = format!("{}, x-delivery-limit {LIMIT}, dead letters to {}", self.pages, self.dead);
        self.story.seen("owner", &limit);
        let both = until(async || {
            let shown = self.host.ask("/v1/sources").await?;
            let sources = shown["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
            let on = sources.iter().filter(|source| source["state"] == "connected").count();
            Ok((sources.len() == 2 && on == 2).then_some(()))
        });
        let both = both.await?;
        self.story.check("the host takes messages from both", both.is_some());
        Ok(())
    }

    async fn malformed(&mut self) -> anyhow::Result<()> {
        self.story.step("A page request is not JSON");
        let attempts = self.published("scan, please", 1).await?;
        let dropped = attempts.iter().all(|attempt| attempt.transition == "dropped" && attempt.number == 0);
        self.story.check("dropped by the policy before any attempt", attempts.len() == 1 && dropped);
        self.story.check("the engine was not troubled", self.engine.visits().is_empty());
        Ok(())
    }

    async fn unknown(&mut self) -> anyhow::Result<()> {
        self.story.step("The engine answers 404: it knows of no such scan");
        self.engine.answers(|_| Reply::status(StatusCode::NOT_FOUND));
        let attempts = self.published(UNKNOWN, 1).await?;
        let dropped = attempts.iter().all(|attempt| attempt.transition == "dropped");
        self.story.check("dropped, not tried again", attempts.len() == 1 && dropped);
        self.story.check("one request reached the engine", self.seen_by_engine(UNKNOWN).len() == 1);
        Ok(())
    }

    async fn stumbling(&mut self) -> anyhow::Result<()> {
        self.story.step("The engine answers 503, once; then it takes the page");
        let busy = Reply::status(StatusCode::SERVICE_UNAVAILABLE);
        self.engine.answers_in_turn(vec![busy, Reply::status(StatusCode::OK)]);
        let attempts = self.published(GOOD, 2).await?;
        let transitions: Vec<_> = attempts.iter().map(|attempt| attempt.transition.as_str()).collect();
        self.story
            .check("given back to the queue, and delivered when it came again", transitions == ["retry", "delivered"]);
        let pauses = pauses(&self.seen_by_engine(GOOD));
        self.story.seen("engine", &format!("was left alone for {pauses:.1?}"));
        self.story.check("after 2 s", pauses.len() == 1 && pauses.iter().all(|pause| pause.as_secs() >= 2));
        Ok(())
    }

    async fn given_up(&mut self) -> anyhow::Result<()> {
        self.story.step("The engine answers 500, however often it is asked; the owner's service stumbles too, once");
        self.engine.answers(|_| Reply::status(StatusCode::INTERNAL_SERVER_ERROR));
        self.owner.answers_in_turn(vec![Reply::status(StatusCode::BAD_GATEWAY), Reply::status(StatusCode::NO_CONTENT)]);
        let attempts = self.published(HOPELESS, 3).await?;
        let waits: Vec<_> = attempts.iter().filter_map(|attempt| attempt.delay_ms).collect();
        let visits = self.seen_by_engine(HOPELESS);
        self.story.check("2 s, 4 s, and 8 s, which the route's limit made 4 s", waits == [2000, 4000, 4000]);
        self.story.check("the first delivery and two more, by the engine's record", visits.len() == 3);

        self.story.step("That was one delivery more than `x-delivery-limit`: the broker dead-letters it");
        let marked =
            until(async || Ok(self.owner.visits().into_iter().next_back().filter(|visit| visit.attempt() > 1))).await?;
        let marked = marked.context("the owner was not told of what the queue gave up")?;
        let id = marked.message().context("what the owner was told names no message")?;
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let death = marked.field("x-death");
        self.story
            .seen("owner", &format!("{} {} x-death: {death}", marked.path, String::from_utf8_lossy(&marked.body)));
        self.story.check("the owner was told which scan failed, and why the broker gave it up", {
            marked.body == HOPELESS.as_bytes() && death.contains("delivery_limit") && death.contains(&self.pages)
        });
        self.story.check("again and again until it had it: the loop is closed", {
            message.summary.state == State::Delivered && self.owner.visits_of(id).len() == 2
        });
        Ok(())
    }

    async fn nothing_is_left(&mut self) -> anyhow::Result<()> {
        self.story.step("In the end");
        let mut left = Vec::new();
        for queue in [&self.pages, &self.dead] {
            let empty = until(async || Ok((self.queues.waiting(queue).await? == 0).then_some(()))).await?;
            self.story.seen("broker", &format!("{queue}: {}", if empty.is_some() { "empty" } else { "not empty" }));
            left.extend(empty.is_none().then_some(queue));
        }
        self.story.check("both queues are empty", left.is_empty());
        let routes = self.host.ask("/v1/routes").await?;
        let routes = routes["routes"].as_array().cloned().unwrap_or_default();
        let counts = routes.iter().find(|route| route["route"] == "engine").map(|route| route["since_start"].clone());
        let counts = counts.unwrap_or_default();
        self.story
            .seen("host", &format!("to the engine: {} dropped, {} delivered", counts["dropped"], counts["delivered"]));
        self.story.check("two page requests were dropped, one was delivered, and one was the owner's", {
            counts["dropped"] == 2 && counts["delivered"] == 1
        });
        let told = self.owner.visits().iter().all(|visit| visit.body == HOPELESS.as_bytes());
        self.story.check("the owner heard of nothing else", told && self.owner.visits().len() == 2);
        Ok(())
    }
}
