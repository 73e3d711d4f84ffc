//! The play of half messages: a shop whose receipts are delivered if, and only if, its orders were taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::message::{MessageId, State};

use super::Stage;
use super::host::{Answer, Host, until};
use super::script::{Example, Script};
use super::stand_in::{Reply, StandIn};
use super::story::Story;

const EXAMPLE: Example =
    Example { name: "reliable-message", text: include_str!("../../../../examples/reliable-message.yaml"), files: &[] };

/// Checks until a transaction is left to a person, in place of the example's.
const CHECKS: usize = 3;

/// The example with a consumer and a shop of the play's own.
pub(super) fn script(consumer: &str, shop: &str) -> Script {
    Script::of(EXAMPLE)
        .at("destination: http://127.0.0.1:8090", &format!("destination: {consumer}"))
        .at("http://127.0.0.1:8090", shop)
        .but("after: 5s", "after: 1500ms")
        .but("every: 5s", "every: 500ms")
        .but("max_checks: 15", "max_checks: 3")
}

/// Plays it.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let (consumer, shop) = (stage.stand_in("consumer").await?, stage.stand_in("shop").await?);
    let host = stage.raise(&script(consumer.url(), shop.url())).await?;
    let ledger = Ledger::default();
    shop.answers({
        let ledger = ledger.clone();
        move |visit| {
            let state = ledger.state(visit.path.trim_start_matches("/transactions/"));
            Reply::json(StatusCode::OK, &json!({ "state": state }))
        }
    });
    let mut scene = Scene { story: &mut stage.story, host, consumer, shop, ledger };
    let delivered = [
        scene.confirmed().await?,
        scene.prepared_twice().await?,
        scene.cancelled().await?,
        scene.the_shop_dies().await?,
        scene.rolled_back().await?,
        scene.nobody_knows().await?,
    ];
    scene.agreement(&delivered.into_iter().flatten().collect::<Vec<_>>());
    Ok(())
}

/// The shop's own database: what became of the operation behind a transaction.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, &'static str>>>);

impl Ledger {
    fn note(&self, id: MessageId, state: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), state);
    }

    fn state(&self, id: &str) -> &'static str {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied().unwrap_or("unknown")
    }
}

struct Scene<'s> {
    story: &'s mut Story,
    host: Host,
    consumer: StandIn,
    shop: StandIn,
    ledger: Ledger,
}

impl Scene<'_> {
    /// The shop prepares the receipt of an order.
    async fn prepare(&self, order: u32) -> anyhow::Result<Answer> {
        let fields = [("content-type", "application/json"), ("idempotency-key", &*format!("order-{order}"))];
        let receipt = json!({ "route": "receipts", "message": { "path": "/receipts", "json": { "order": order } } });
        let answer = self.host.call(Method::POST, "/v1/transactions", &fields, receipt.to_string()).await?;
        self.story.seen("shop", &format!("prepares: {}", brief(&answer)));
        Ok(answer)
    }

    /// The shop says `word`.
    async fn say(&self, id: MessageId, word: &str) -> anyhow::Result<Answer> {
        let answer = self.host.post(&format!("/v1/transactions/{id}/{word}"), &json!({})).await?;
        self.story.seen("shop", &format!("{word}: {}", brief(&answer)));
        Ok(answer)
    }

    /// How the transaction stands once it is in `state`, or patience is at an end.
    async fn stands(&self, id: MessageId, state: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/transactions/{id}");
        let there = async || Ok(Some(self.host.ask(&path).await?).filter(|now| now["state"] == state));
        let now = match until(there).await? {
            Some(now) => now,
            None => self.host.ask(&path).await?,
        };
        let text = |key: &str| now[key].as_str().unwrap_or_default().to_owned();
        self.story.seen("host", &format!("{}, after {} checks: {}", text("state"), now["checks"], text("reason")));
        Ok(now)
    }

    /// How often the shop was asked about a transaction, by its own record.
    fn asked(&self, id: MessageId) -> usize {
        self.shop.visits_at(&format!("/transactions/{id}")).len()
    }

    /// Waits for the delivery, and answers whether the consumer has the receipt, once.
    async fn is_delivered(&self, id: MessageId) -> anyhow::Result<bool> {
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        Ok(message.summary.state == State::Delivered && self.consumer.visits_of(id).len() == 1)
    }

    async fn confirmed(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The shop prepares a receipt, takes the order, and confirms");
        let id = self.prepare(1).await?.id()?;
        let waits = self.host.message(id).await?.is_none() && self.consumer.visits().is_empty();
        self.story.check("prepared is on disk, and no message: nothing was delivered", waits);
        self.ledger.note(id, "committed");
        let confirmed = self.say(id, "confirm").await?;
        let delivered = self.is_delivered(id).await?;
        self.story.check("confirmed, and delivered", confirmed.status == StatusCode::OK && delivered);
        self.story.check("nobody was asked who spoke", self.asked(id) == 0);
        Ok(Some(id))
    }

    async fn prepared_twice(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The answer to a preparation is lost: the shop prepares again, under the same Idempotency-Key");
        let (first, again) = (self.prepare(2).await?, self.prepare(2).await?);
        let id = first.id()?;
        self.story.check("it is the same transaction", again.id()? == id && again.field("backstop-replayed") == "true");
        self.ledger.note(id, "committed");
        self.say(id, "confirm").await?;
        let repeated = self.say(id, "confirm").await?;
        let delivered = self.is_delivered(id).await?;
        self.story
            .check("the same word again changes nothing: one receipt", repeated.status == StatusCode::OK && delivered);
        let contrary = self.say(id, "cancel").await?;
        self.story.check("the contrary word is refused: the first one holds", contrary.status == StatusCode::CONFLICT);
        Ok(Some(id))
    }

    async fn cancelled(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The shop refuses the order, and cancels");
        let id = self.prepare(3).await?.id()?;
        self.ledger.note(id, "rolled_back");
        let cancelled = self.say(id, "cancel").await?;
        let contrary = self.say(id, "confirm").await?;
        self.story.check("cancelled, and a later confirmation is refused", {
            cancelled.status == StatusCode::OK && contrary.status == StatusCode::CONFLICT
        });
        self.story.check("there is no such message", self.host.message(id).await?.is_none());
        Ok(None)
    }

    async fn the_shop_dies(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The shop takes the order and dies before it confirms; it is back when it is asked");
        let id = self.prepare(4).await?.id()?;
        self.ledger.note(id, "committed");
        let now = self.stands(id, "confirmed").await?;
        let delivered = self.is_delivered(id).await?;
        self.story.check("the shop was asked once, found the order in its ledger, and said `committed`", {
            now["state"] == "confirmed" && now["checks"] == 1 && self.asked(id) == 1
        });
        self.story.check("the receipt was delivered", delivered);
        Ok(Some(id))
    }

    async fn rolled_back(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The shop's commit fails, and it says nothing; asked, it says `rolled_back`");
        let id = self.prepare(5).await?.id()?;
        self.ledger.note(id, "rolled_back");
        let now = self.stands(id, "cancelled").await?;
        self.story.check("gone: there is no such message", {
            now["state"] == "cancelled" && self.asked(id) == 1 && self.host.message(id).await?.is_none()
        });
        Ok(None)
    }

    async fn nobody_knows(&mut self) -> anyhow::Result<Option<MessageId>> {
        self.story.step("The shop does not know what became of its order, however often it is asked");
        let id = self.prepare(6).await?.id()?;
        let now = self.stands(id, "parked").await?;
        self.story.check("asked three times and no more, it is parked for a person", {
            now["state"] == "parked" && self.asked(id) == CHECKS
        });
        let parked = self.host.ask("/v1/transactions?state=parked").await?;
        let ids = parked["transactions"].as_array().map(|parked| parked.iter().map(|one| one["id"].clone()).collect());
        self.story.check("it is listed, not dropped, and not delivered", {
            ids == Some(vec![json!(id)]) && self.consumer.visits_of(id).is_empty()
        });

        self.story.step("The shop's ledger is mended: the order was taken. A person has the shop asked again");
        self.ledger.note(id, "committed");
        self.host.tell(&format!("/v1/transactions/{id}/resume"), &json!({})).await?;
        self.story.seen("person", &format!("backstop transactions resume {id}"));
        let now = self.stands(id, "confirmed").await?;
        let delivered = self.is_delivered(id).await?;
        self.story
            .check("it said `committed`, and the receipt was delivered", now["state"] == "confirmed" && delivered);
        Ok(Some(id))
    }

    /// Shop and consumer agree in the end.
    fn agreement(&mut self, expected: &[MessageId]) {
        self.story.step("In the end");
        let received: Vec<_> = self.consumer.visits().iter().filter_map(super::stand_in::Visit::message).collect();
        let orders = |ids: &[MessageId]| ids.iter().map(MessageId::to_string).collect::<Vec<_>>().join(" ");
        self.story.seen("consumer", &orders(&received));
        self.story.check("the consumer has a receipt of every order that was taken, once, and of no other", {
            received == expected && expected.iter().all(|id| self.ledger.state(&id.to_string()) == "committed")
        });
    }
}

/// An answer about a transaction, in a few words.
fn brief(answer: &Answer) -> String {
    let body = answer.json();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let what = if answer.status.is_success() { format!("{} {}", text("state"), text("id")) } else { text("title") };
    format!("{} {what}", answer.status.as_u16())
}
