//! The play of an event bus: events matched to routes, checked, tried again, put aside, found and published again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::message::{MessageId, State};

use super::Stage;
use super::host::Host;
use super::script::{Example, Script};
use super::stand_in::{Reply, StandIn, pauses};
use super::story::Story;

const EXAMPLE: Example = Example {
    name: "event-pipeline",
    text: include_str!("../../../../examples/event-pipeline.yaml"),
    files: &[("event-pipeline.schema.json", include_str!("../../../../examples/event-pipeline.schema.json"))],
};

const ORDER_CREATED: &str = "com.example.order.created";

/// The example with subscribers of the play's own.
pub(super) fn script(subscribers: &str) -> Script {
    Script::of(EXAMPLE)
        .at("http://127.0.0.1:9001", subscribers)
        .but("min_delay: 5s", "min_delay: 1s")
        .but("max_delay: 5s", "max_delay: 1s")
}

/// Plays it.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let subscribers = stage.stand_in("subscribers").await?;
    let host = stage.raise(&script(subscribers.url())).await?;
    let mut scene = Scene { story: &mut stage.story, host, subscribers };
    scene.matched().await?;
    scene.matched_by_none().await?;
    scene.misfit().await?;
    scene.transient().await?;
    let refused = scene.persistent().await?;
    scene.twice().await?;
    scene.published_again(refused).await
}

struct Scene<'s> {
    story: &'s mut Story,
    host: Host,
    subscribers: StandIn,
}

/// What became of an event that was published.
struct Published {
    /// Of this publish, and of no other.
    uid: String,
    /// The message on each route that took it.
    messages: BTreeMap<String, MessageId>,
}

impl Published {
    fn on(&self, route: &str) -> anyhow::Result<MessageId> {
        self.messages.get(route).copied().with_context(|| format!("the event did not go to route {route}"))
    }

    fn routes(&self) -> Vec<&str> {
        self.messages.keys().map(String::as_str).collect()
    }
}

impl Scene<'_> {
    /// Publishes an event in binary mode, with further attributes.
    async fn publish(
        &self,
        kind: &str,
        id: &str,
        attributes: &[(&'static str, &str)],
        data: &Value,
    ) -> anyhow::Result<Published> {
        let event = [("ce-specversion", "1.0"), ("ce-type", kind), ("ce-source", "/shop/eu"), ("ce-id", id)];
        let fields = [&event[..], &[("content-type", "application/json")], attributes].concat();
        let answer = self.host.call(Method::POST, "/events", &fields, data.to_string()).await?;
        let event = answer.json()["events"][0].clone();
        let mut messages = BTreeMap::new();
        for message in event["messages"].as_array().with_context(|| answer.shown())? {
            let text = |key: &str| message[key].as_str().unwrap_or_default();
            messages.insert(text("route").to_owned(), text("id").parse()?);
        }
        let published = Published { uid: event["message_uid"].as_str().unwrap_or_default().to_owned(), messages };
        let routes = published.routes().join(", ");
        self.story.seen("publisher", &format!("{kind} {id}: {} → {routes}; uid {}", answer.status, published.uid));
        Ok(published)
    }

    async fn matched(&mut self) -> anyhow::Result<()> {
        self.story.step("An order is created in the region eu: two routes match it");
        let attributes = [("ce-region", "eu"), ("ce-subject", "customer-1")];
        let published = self.publish(ORDER_CREATED, "1", &attributes, &json!({ "total": 12.5 })).await?;
        self.story.check("it went to billing and to warehouse", published.routes() == ["billing", "warehouse"]);
        for (route, path) in [("billing", "/orders"), ("warehouse", "/stock")] {
            let id = published.on(route)?;
            let message = self.host.until(id, State::Delivered).await?;
            self.story.journal(&message.journal);
            let visits = self.subscribers.visits_of(id);
            let same = |visit: &super::stand_in::Visit| {
                visit.path == path && visit.field("ce-messageuid") == published.uid && visit.field("ce-id") == "1"
            };
            let what = format!("{route} has it, as a message of its own under the publish's one uid");
            self.story.check(&what, visits.len() == 1 && visits.iter().all(same));
        }
        Ok(())
    }

    async fn matched_by_none(&mut self) -> anyhow::Result<()> {
        self.story.step("An event comes that no route was written for");
        let published = self.publish("com.example.greeting", "2", &[], &json!("hello")).await?;
        let only = published.routes() == ["unknown"];
        let message = self.host.until(published.on("unknown")?, State::Delivered).await?;
        self.story.journal(&message.journal);
        self.story.check("it went to the route that says `match: otherwise`, and to no other", only);
        self.story.check("which has it", self.subscribers.visits_at("/unknown").len() == 1);
        Ok(())
    }

    async fn misfit(&mut self) -> anyhow::Result<()> {
        self.story.step("An order comes without a total that makes sense: it does not fit the route's schema");
        let attributes = [("ce-subject", "customer-3")];
        let published = self.publish(ORDER_CREATED, "3", &attributes, &json!({ "total": 0 })).await?;
        let id = published.on("billing")?;
        let message = self.host.until(id, State::Dead).await?;
        self.story.seen("host", &format!("dead letter: {}", message.summary.reason));
        self.story.check("a dead letter at once, with the place that failed", {
            message.summary.state == State::Dead && message.summary.reason.contains("/total")
        });
        self.story.check("without an attempt", self.subscribers.visits_of(id).is_empty());
        Ok(())
    }

    async fn transient(&mut self) -> anyhow::Result<()> {
        self.story.step("Billing answers 503, twice; then it takes the order");
        let busy = Reply::status(StatusCode::SERVICE_UNAVAILABLE);
        self.subscribers.answers_in_turn(vec![busy.clone(), busy, Reply::status(StatusCode::OK)]);
        let attributes = [("ce-subject", "customer-4")];
        let published = self.publish(ORDER_CREATED, "4", &attributes, &json!({ "total": 7 })).await?;
        let id = published.on("billing")?;
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let delays: Vec<_> = message.journal.iter().filter_map(|attempt| attempt.delay_ms).collect();
        self.story.check("tried again after 1 s, and after twice that", delays == [1000, 2000]);
        let pauses = pauses(&self.subscribers.visits_of(id));
        self.story.seen("billing", &format!("was left alone for {pauses:.1?}"));
        let kept = pauses.iter().zip([1, 2]).all(|(pause, least)| *pause >= Duration::from_secs(least));
        self.story.check("and not before, by its own record", pauses.len() == 2 && kept);
        Ok(())
    }

    async fn persistent(&mut self) -> anyhow::Result<MessageId> {
        self.story.step("Billing answers 400: no attempt would change that");
        self.subscribers.answers(|_| Reply::status(StatusCode::BAD_REQUEST));
        let attributes = [("ce-subject", "customer-5")];
        let published = self.publish(ORDER_CREATED, "5", &attributes, &json!({ "total": 8 })).await?;
        let id = published.on("billing")?;
        let message = self.host.until(id, State::Dead).await?;
        self.story.journal(&message.journal);
        self.story.check("a dead letter after one attempt", {
            message.summary.state == State::Dead && self.subscribers.visits_of(id).len() == 1
        });
        Ok(id)
    }

    async fn twice(&mut self) -> anyhow::Result<()> {
        self.story.step("The same event is published twice");
        self.subscribers.answers(|_| Reply::status(StatusCode::OK));
        let attributes = [("ce-region", "eu"), ("ce-subject", "customer-6")];
        let data = json!({ "total": 9 });
        let first = self.publish(ORDER_CREATED, "6", &attributes, &data).await?;
        let second = self.publish(ORDER_CREATED, "6", &attributes, &data).await?;
        self.story.check("each publish has a uid of its own", first.uid != second.uid);
        let (one, other) = (first.on("billing")?, second.on("billing")?);
        self.host.until(one, State::Delivered).await?;
        self.host.until(other, State::Delivered).await?;
        let visits = [self.subscribers.visits_of(one), self.subscribers.visits_of(other)].concat();
        let uids: Vec<_> = visits.iter().map(|visit| visit.field("ce-messageuid")).collect();
        self.story.seen("billing", &format!("got {}", uids.join(" and ")));
        self.story.check("billing got it twice, and can tell by source and id, or by the uids", {
            one != other && uids == [&first.uid, &second.uid]
        });
        let warehouse = first.on("warehouse")?;
        self.host.until(warehouse, State::Delivered).await?;
        self.story.check("warehouse, which says `dedupe`, got it once", {
            second.on("warehouse")? == warehouse && self.subscribers.visits_of(warehouse).len() == 1
        });
        Ok(())
    }

    /// What failed is found in the archive, and published again.
    async fn published_again(&mut self, refused: MessageId) -> anyhow::Result<()> {
        self.story.step("Billing is mended; what it refused is found in the archive, and published again");
        let dead = self.host.listed(State::Dead).await?;
        for letter in &dead {
            self.story.seen("host", &format!("{}  {}  {}", letter.id, letter.route, letter.reason));
        }
        self.story.check("two dead letters: the misfit, and what billing refused", dead.len() == 2);
        let found = self.host.ask("/v1/archive?state=dead&reason=refused&body=/total=8").await?;
        let found = Vec::<Found>::deserialize(&found["messages"])?;
        self.story.seen("person", "backstop archive query --state dead --reason refused --body /total=8");
        self.story.check("one of them was refused, and holds a total of 8", {
            matches!(found.as_slice(), [one] if one.id == refused)
        });

        let again = self.host.tell(&format!("/v1/archive/{refused}/republish"), &json!({ "run": "mended" })).await?;
        let again = Found::deserialize(&again)?;
        self.story.seen("person", &format!("backstop archive republish --run mended …: {}  of {refused}", again.id));
        let message = self.host.until(again.id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let uid =
            |id: MessageId| self.subscribers.visits_of(id).first().map(|visit| visit.field("ce-messageuid").to_owned());
        let (first, second) = (uid(refused), uid(again.id));
        self.story.check("delivered at last, under a uid of its own", {
            message.summary.state == State::Delivered && second.is_some() && first != second
        });
        let original = self.host.message(refused).await?.map(|message| message.summary.state);
        self.story.check("linked to its original, which stays as it is", {
            again.original == Some(refused) && original == Some(State::Dead)
        });
        Ok(())
    }
}

/// A message as the archive shows it, as far as it matters here.
#[derive(Deserialize)]
struct Found {
    id: MessageId,
    original: Option<MessageId>,
}
