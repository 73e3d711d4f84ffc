//! JavaScript, by the crate `rquickjs`: a context with the language's core and JSON, and nothing that reaches outside.
//!
//! Its memory and stack are limited, and a handler that it calls every ten thousand or so operations stops it. It
//! reads the body with its own parser.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::anyhow;
use rquickjs::context::intrinsic::{Eval, Json};
use rquickjs::{Array, CatchResultExt, Context, Function, Object, Persistent, Runtime, String as JsString, Value};

use crate::{Body, Decision, Peer, Question, limits};

const POLICY: &str = include_str!("policy.js");

/// About how many operations pass between two calls of the handler.
const STRIDE: u32 = 10_000;

/// A runtime and a context with the policy loaded.
pub struct JavaScript {
    // It must go before the runtime does.
    judge: Persistent<Function<'static>>,
    context: Context,
    /// How many strides the decision may still take.
    budget: Rc<Cell<u32>>,
    body: Body,
}

impl JavaScript {
    /// Makes a runtime and loads the policy.
    ///
    /// # Errors
    /// When it does not load.
    pub fn new(body: Body) -> anyhow::Result<Self> {
        let code = match body {
            Body::Whole => "body?.Response?.Error?.Code",
            Body::Pointer => "json_pointer(body, \"/Response/Error/Code\")",
        };
        Self::load(POLICY.replace("CODE", code), body)
    }

    pub(crate) fn load(policy: String, body: Body) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        runtime.set_memory_limit(limits::MEMORY);
        runtime.set_max_stack_size(256 << 10);
        let budget = Rc::new(Cell::new(limits::OPERATIONS / STRIDE));
        let left = Rc::clone(&budget);
        runtime.set_interrupt_handler(Some(Box::new(move || match left.get() {
            0 => true,
            strides => {
                left.set(strides - 1);
                false
            }
        })));
        let context = Context::custom::<(Eval, Json)>(&runtime)?;
        let judge = context.with(|ctx| -> anyhow::Result<_> {
            if body == Body::Pointer {
                let json_pointer = |body: String, pointer: String| crate::text_at(body.as_bytes(), &pointer);
                ctx.globals().set("json_pointer", Function::new(ctx.clone(), json_pointer)?)?;
            }
            let judge: Function = ctx.eval(policy).catch(&ctx).map_err(|e| anyhow!("{e}"))?;
            Ok(Persistent::save(&ctx, judge))
        })?;
        Ok(Self { judge, context, budget, body })
    }
}

impl Peer for JavaScript {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        self.budget.set(limits::OPERATIONS / STRIDE);
        self.context.with(|ctx| {
            let headers = Object::new(ctx.clone())?;
            for (name, value) in question.headers() {
                headers.set(name, value)?;
            }
            let body: Value = match self.body {
                Body::Whole => match question.content().map(|body| ctx.json_parse(body)) {
                    Some(Ok(body)) => body,
                    Some(Err(_)) => {
                        ctx.catch();
                        Value::new_undefined(ctx.clone())
                    }
                    None => Value::new_undefined(ctx.clone()),
                },
                Body::Pointer => JsString::from_str(ctx.clone(), question.text())?.into_value(),
            };
            let judge = self.judge.clone().restore(&ctx)?;
            let answer: Array =
                judge.call((question.status, headers, body)).catch(&ctx).map_err(|error| anyhow!("{error}"))?;
            let verdict: String = answer.get(0)?;
            Decision::new(&verdict, answer.get(1)?, answer.get::<String>(2)?)
        })
    }
}

/// A runtime, a context and the policy made anew for every decision.
pub struct Fresh(pub Body);

impl Peer for Fresh {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        JavaScript::new(self.0)?.judge(question)
    }
}
