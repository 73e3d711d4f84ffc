//! CEL, by the crate `cel`: an expression that ends by construction, since the language has no loops but those over
//! values it is given.
//!
//! The crate offers no limit on what an expression costs or takes in memory, nor any way to stop one.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Context, Env, ExecutionError, Program, Value};
use serde_json::Value as Json;

use crate::{Body, Decision, Peer, Question};

/// The policy, with `CODE` where the error code goes.
const POLICY: &str = include_str!("policy.cel");

/// A compiled expression.
pub struct Cel {
    env: Arc<Env>,
    program: Program,
    body: Body,
}

impl Cel {
    /// Compiles the policy.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn new(body: Body) -> anyhow::Result<Self> {
        let mut env = Env::stdlib();
        env.add_overload("json_pointer", "json_pointer_string", vec![STRING_TYPE, STRING_TYPE], json_pointer)?;
        let code = match body {
            Body::Whole => {
                // With the optional syntax, `body.?Response`, every step would copy what it leads to.
                "(body != null && has(body.Response) && has(body.Response.Error) && has(body.Response.Error.Code)
                  ? body.Response.Error.Code : null)"
            }
            Body::Pointer => "json_pointer(body, '/Response/Error/Code')",
        };
        let program = env.compile(&POLICY.replace("CODE", code)).map_err(|error| anyhow!("{error}"))?;
        Ok(Self { env: Arc::new(env), program, body })
    }
}

impl Peer for Cel {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        let headers: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> =
            question.headers().map(|(name, value)| (name.into(), text(value))).collect();
        context.add_variable_as_val("status", Box::new(CelInt::from(i64::from(question.status))));
        context.add_variable_as_val("headers", Box::new(CelMap::from(headers)));
        // `add_variable` would take a `serde_json::Value` as it is, and copy it three times on the way.
        let body = match self.body {
            Body::Whole => {
                let json = question.content().and_then(|body| serde_json::from_slice(body).ok());
                json.map_or_else(|| Box::new(CelNull) as Box<dyn Val>, value)
            }
            Body::Pointer => text(question.text()),
        };
        context.add_variable_as_val("body", body);
        let Value::List(answer) = self.program.execute(&context)? else { bail!("no list") };
        match answer.as_slice() {
            [Value::String(verdict), Value::Int(after), Value::String(reason)] => {
                Decision::new(verdict, u64::try_from(*after).ok(), reason.as_str())
            }
            [Value::String(verdict), Value::Null, Value::String(reason)] => {
                Decision::new(verdict, None, reason.as_str())
            }
            other => bail!("no decision: {other:?}"),
        }
    }
}

fn text<'a>(text: &'a str) -> Box<dyn Val + 'a> {
    Box::new(CelString::from(text))
}

/// Moves JSON into CEL's values.
fn value(json: Json) -> Box<dyn Val> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(bool) => Box::new(CelBool::from(bool)),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Box::new(CelInt::from(int)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text)),
        Json::Array(items) => Box::new(CelList::from(items.into_iter().map(value).collect::<Vec<_>>())),
        Json::Object(fields) => {
            let fields: HashMap<CelMapKey<'static>, Box<dyn Val>> =
                fields.into_iter().map(|(name, field)| (name.into(), value(field))).collect();
            Box::new(CelMap::from(fields))
        }
    }
}

fn json_pointer<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = |arg: usize| args.get(arg).and_then(|arg| arg.downcast_ref::<CelString>());
    let (Some(body), Some(pointer)) = (text(0), text(1)) else {
        return Err(ExecutionError::function_error("json_pointer", "takes two strings"));
    };
    Ok(match crate::text_at(body.inner().as_bytes(), pointer.inner()) {
        Some(text) => CowVal::owned(CelString::from(text)),
        None => CowVal::owned(CelNull),
    })
}
