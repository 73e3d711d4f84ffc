//! Lua 5.4, by the crate `mlua`, with the parts of its library that reach nothing outside.
//!
//! Its memory is limited by its allocator, its instructions by a hook on every thousandth of them. It has no parser of
//! JSON: serde_json reads the body straight into Lua's values.

use std::cell::Cell;
use std::rc::Rc;

use mlua::serde::{SerializeOptions, Serializer};
use mlua::{Error, Function, HookTriggers, Lua as State, LuaOptions, LuaString, StdLib, Value, VmState};

use crate::{Body, Decision, Peer, Question, limits};

const POLICY: &str = include_str!("policy.lua");

/// How many instructions pass between two looks at the budget.
const STRIDE: u32 = 1000;

/// What of the basic library could load other code, or hold the collector.
const FORBIDDEN: [&str; 5] = ["load", "loadfile", "dofile", "require", "collectgarbage"];

/// A state of Lua's with the policy loaded.
pub struct Lua {
    state: State,
    judge: Function,
    /// How many strides the decision may still take.
    budget: Rc<Cell<u32>>,
    body: Body,
}

impl Lua {
    /// Makes a state and loads the policy.
    ///
    /// # Errors
    /// When it does not load.
    pub fn new(body: Body) -> anyhow::Result<Self> {
        Self::load(&source(body), body)
    }

    pub(crate) fn load(policy: &[u8], body: Body) -> anyhow::Result<Self> {
        let state = State::new_with(StdLib::STRING | StdLib::TABLE | StdLib::MATH, LuaOptions::default())?;
        for name in FORBIDDEN {
            state.globals().raw_set(name, Value::Nil)?;
        }
        if body == Body::Pointer {
            let json_pointer = state.create_function(|_, (body, pointer): (LuaString, LuaString)| {
                Ok(crate::text_at(&body.as_bytes(), &pointer.to_str()?))
            })?;
            state.globals().raw_set("json_pointer", json_pointer)?;
        }
        let judge: Function = state.load(policy).eval()?;
        state.set_memory_limit(limits::MEMORY)?;
        let budget = Rc::new(Cell::new(0));
        let left = Rc::clone(&budget);
        state.set_hook(HookTriggers::new().every_nth_instruction(STRIDE), move |_, _| match left.get() {
            0 => Err(Error::runtime("out of instructions")),
            strides => {
                left.set(strides - 1);
                Ok(VmState::Continue)
            }
        })?;
        Ok(Self { state, judge, budget, body })
    }

    /// The policy as bytecode, of which states can be made faster than of its text.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn compile(body: Body) -> anyhow::Result<Bytecode> {
        let policy = State::new().load(source(body)).into_function()?.dump(true);
        Ok(Bytecode { policy, body })
    }

    fn value(&self, json: &[u8]) -> Option<Value> {
        let options = SerializeOptions::new().set_array_metatable(false).serialize_unit_to_null(false);
        let to = Serializer::new_with_options(&self.state, options);
        let mut from = serde_json::Deserializer::from_slice(json);
        serde_transcode::transcode(&mut from, to).ok()
    }
}

fn source(body: Body) -> Vec<u8> {
    let code = match body {
        Body::Whole => "body and body.Response and body.Response.Error and body.Response.Error.Code",
        Body::Pointer => "json_pointer(body, \"/Response/Error/Code\")",
    };
    POLICY.replace("CODE", code).into_bytes()
}

impl Peer for Lua {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        let headers = self.state.create_table_with_capacity(0, 2)?;
        for (name, value) in question.headers() {
            headers.raw_set(name, value)?;
        }
        let body = match self.body {
            Body::Whole => question.content().and_then(|body| self.value(body)).unwrap_or(Value::Nil),
            Body::Pointer => Value::String(self.state.create_string(question.body)?),
        };
        self.budget.set(limits::OPERATIONS / STRIDE);
        let (verdict, after, reason): (LuaString, Option<u64>, String) =
            self.judge.call((question.status, headers, body))?;
        Decision::new(&verdict.to_str()?, after, reason)
    }
}

/// A compiled policy.
pub struct Bytecode {
    policy: Vec<u8>,
    body: Body,
}

impl Peer for Bytecode {
    /// Decides on a fresh state.
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        Lua::load(&self.policy, self.body)?.judge(question)
    }
}
