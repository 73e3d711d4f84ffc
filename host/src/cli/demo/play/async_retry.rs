//! The play of a retry service: synchronous attempts, asynchronous ones, fresh tokens, and dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::config::Secret;
use crate::message::State;

use super::Stage;
use super::host::Host;
use super::script::{Example, Script};
use super::stand_in::{Reply, StandIn, pauses};
use super::story::Story;

const EXAMPLE: Example =
    Example { name: "async-retry", text: include_str!("../../../../examples/async-retry.yaml"), files: &[] };

/// Where tokens are given out.
const TOKENS: &str = "/token";

/// The example with destinations of the play's own.
pub(super) fn script(orders: &str, crm: &str) -> Script {
    Script::of(EXAMPLE)
        .at("http://127.0.0.1:9001/", orders)
        .at("http://127.0.0.1:9002", crm)
        .but("min_delay: 1s", "min_delay: 200ms")
        .but("max_delay: 60s", "max_delay: 1s")
        .variable("CRM_SECRET", Secret::new("not-a-secret-but-treated-as-one"))
}

/// Plays it.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let (orders, crm) = (stage.stand_in("orders").await?, stage.stand_in("crm").await?);
    let host = stage.raise(&script(orders.url(), crm.url())).await?;
    let mut scene = Scene { story: &mut stage.story, host, orders, crm, tokens: Arc::default() };
    scene.any_origin_any_destination().await?;
    scene.while_the_caller_waits().await?;
    scene.without_the_caller().await?;
    scene.an_expired_token().await?;
    scene.a_retry_after().await?;
    scene.the_maximum().await
}

struct Scene<'s> {
    story: &'s mut Story,
    host: Host,
    orders: StandIn,
    crm: StandIn,
    /// Tokens given out by `crm`; those up to `expired` do not work any more.
    tokens: Arc<Tokens>,
}

#[derive(Default)]
struct Tokens {
    issued: AtomicU32,
    expired: AtomicU32,
}

impl Tokens {
    /// The answer of a destination that asks for tokens, and gives them out.
    fn answer(&self, path: &str, shown: &str) -> Reply {
        if path == TOKENS {
            let token = format!("token-{}", self.issued.fetch_add(1, Ordering::SeqCst) + 1);
            // An hour, it says.
            let token = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
            return Reply::json(StatusCode::OK, &token);
        }
        let number = shown.strip_prefix("Bearer token-").and_then(|number| number.parse().ok()).unwrap_or(0);
        if number > self.expired.load(Ordering::SeqCst) {
            return Reply::status(StatusCode::NO_CONTENT);
        }
        Reply::json(StatusCode::UNAUTHORIZED, &json!({ "fault": { "code": "TOKEN_EXPIRED" } }))
    }
}

impl Scene<'_> {
    async fn any_origin_any_destination(&mut self) -> anyhow::Result<()> {
        self.story.step("Three services call two destinations, each in its own way");
        let tokens = Arc::clone(&self.tokens);
        self.crm.answers(move |visit| tokens.answer(&visit.path, visit.field("authorization")));
        let calls = [
            (Method::POST, "orders", "/v1/orders?dry=1", "checkout", r#"{"order":1}"#, &self.orders),
            (Method::PUT, "crm", "/v1/contacts/7", "accounts", r#"{"name":"Ada"}"#, &self.crm),
            (Method::DELETE, "orders", "/v1/orders/5", "warehouse", "", &self.orders),
        ];
        for (method, route, path, origin, body, destination) in calls {
            let fields = [("x-service", origin), ("content-type", "application/json")];
            let answer = self.host.call(method.clone(), &format!("/r/{route}{path}"), &fields, body).await?;
            let id = answer.id()?;
            // One route answers at once, the other one delivers in its own time.
            if answer.status == StatusCode::ACCEPTED {
                self.host.until(id, State::Delivered).await?;
            }
            let visits = destination.visits_of(id);
            self.story.seen(origin, &format!("{method} {path} to {route}: {}", answer.status));
            let same = visits.iter().any(|visit| {
                visit.method == method
                    && visit.path == path
                    && visit.field("x-service") == origin
                    && visit.body == body.as_bytes()
            });
            let what = format!("{route} got it once: the method, path, query, fields and body of {origin}");
            self.story.check(&what, same && visits.len() == 1);
        }
        let issued = self.tokens.issued.load(Ordering::SeqCst);
        self.story.check("the caller needs no token of crm's: the host got one", issued == 1);
        Ok(())
    }

    async fn while_the_caller_waits(&mut self) -> anyhow::Result<()> {
        self.story.step("orders says nothing for a second, once; then it takes the order");
        self.orders.answers_in_turn(vec![Reply::Silence, Reply::text("order 2 is placed")]);
        let answer = self.host.post("/r/orders/v1/orders", &json!({ "order": 2 })).await?;
        let id = answer.id()?;
        let attempts = self.host.heard(id).await;
        self.story.journal(&attempts);
        self.story.seen("checkout", &answer.shown());
        self.story.check("tried again while its caller waited, who got the answer itself", {
            answer.text() == "order 2 is placed" && self.orders.visits_of(id).len() == 2
        });
        self.story.check("nothing was stored", self.host.message(id).await?.is_none());
        Ok(())
    }

    async fn without_the_caller(&mut self) -> anyhow::Result<()> {
        self.story.step("orders answers 503, three times; then it takes the order");
        let busy = Reply::status(StatusCode::SERVICE_UNAVAILABLE);
        self.orders.answers_in_turn(vec![busy.clone(), busy.clone(), busy, Reply::status(StatusCode::CREATED)]);
        let answer = self.host.post("/r/orders/v1/orders", &json!({ "order": 3 })).await?;
        let id = answer.id()?;
        self.story.seen("checkout", &answer.shown());
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let visits = self.orders.visits_of(id);
        self.story.check("two attempts, then the caller was told 202, and the host went on", {
            answer.status == StatusCode::ACCEPTED && message.journal.len() == 4
        });
        self.story.check("delivered at the fourth attempt, by both", {
            message.summary.state == State::Delivered && visits.len() == 4
        });
        let keys: Vec<_> = visits.iter().map(|visit| visit.field("idempotency-key")).collect();
        let one = keys.first().is_some_and(|first| !first.is_empty() && keys.iter().all(|key| key == first));
        self.story.check("orders could tell the repeats: every one came under one idempotency key", one);
        Ok(())
    }

    async fn an_expired_token(&mut self) -> anyhow::Result<()> {
        self.story.step("crm answers 401 with `TOKEN_EXPIRED`: the token ended before its hour");
        self.tokens.expired.store(self.tokens.issued.load(Ordering::SeqCst), Ordering::SeqCst);
        let id = self.host.post("/r/crm/v1/contacts", &json!({ "name": "Grace" })).await?.id()?;
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let shown: Vec<_> =
            self.crm.visits_of(id).iter().map(|visit| visit.field("authorization").to_owned()).collect();
        self.story.seen("crm", &format!("was shown {}", shown.join(", then ")));
        self.story.check("a fresh token was fetched, and the message delivered with it", {
            shown == ["Bearer token-1", "Bearer token-2"] && message.summary.state == State::Delivered
        });
        self.story.check("crm was asked for two tokens in all", self.crm.visits_at(TOKENS).len() == 2);
        Ok(())
    }

    async fn a_retry_after(&mut self) -> anyhow::Result<()> {
        self.story.step("crm answers 404, but with `Retry-After: 2`");
        let later = Reply::status(StatusCode::NOT_FOUND).with("retry-after", "2");
        self.crm.answers_in_turn(vec![later, Reply::status(StatusCode::NO_CONTENT)]);
        let id = self.host.post("/r/crm/v1/contacts", &json!({ "name": "Edsger" })).await?.id()?;
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(&message.journal);
        let pauses = pauses(&self.crm.visits_of(id));
        self.story.seen("crm", &format!("was left alone for {pauses:.1?}"));
        let kept = pauses.len() == 1 && pauses.iter().all(|pause| *pause >= Duration::from_secs(2));
        self.story.check("any answer that says when to come again is tried again, and not before", kept);
        Ok(())
    }

    async fn the_maximum(&mut self) -> anyhow::Result<()> {
        self.story.step("orders answers 500, however often it is asked");
        self.orders.answers(|_| Reply::status(StatusCode::INTERNAL_SERVER_ERROR));
        let id = self.host.post("/r/orders/v1/orders", &json!({ "order": 4 })).await?.id()?;
        let message = self.host.until(id, State::Dead).await?;
        self.story.journal(&message.journal);
        self.story.check("five attempts, and no more: a dead letter", {
            message.summary.state == State::Dead && self.orders.visits_of(id).len() == 5
        });
        let dead = self.host.listed(State::Dead).await?;
        for letter in &dead {
            self.story.seen("host", &format!("{}  {}  {}", letter.id, letter.route, letter.reason));
        }
        let listed = dead.iter().map(|letter| letter.id).eq([id]);
        self.story.check("it is held for 14 days, and listed with its reason", listed);

        self.story.step("orders is mended, and a person has the dead letters of its route sent again");
        self.orders.answers(|_| Reply::status(StatusCode::CREATED));
        let which = json!({ "matching": { "route": "orders", "states": ["dead"] } });
        let redriven = self.host.tell("/v1/dead/redrive", &which).await?;
        self.story.seen("person", &format!("backstop dead redrive --route orders: {redriven}"));
        let message = self.host.until(id, State::Delivered).await?;
        self.story.journal(message.journal.get(5..).unwrap_or_default());
        self.story.check("delivered, under the id and in the journal that it had", {
            message.summary.state == State::Delivered && self.orders.visits_of(id).len() == 6
        });
        self.story.check("no dead letter is left", self.host.listed(State::Dead).await?.is_empty());
        Ok(())
    }
}
