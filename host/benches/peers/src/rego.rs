//! Rego, by the crate `regorus`: compiled for its register machine, which is reused.
//!
//! Its limits on instructions and time are on. Its limit on memory is not: it needs an allocator of its own for the
//! whole process, and would change every contestant.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::RegoVM;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::{Decision, Peer, Question, limits};

const ENTRY: &str = "data.retry.decision";

/// A machine with the policy loaded.
pub struct Rego {
    vm: RegoVM,
    /// The names in the input, made once.
    status: Value,
    headers: Value,
    body: Value,
}

impl Rego {
    /// Compiles the policy.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn new() -> anyhow::Result<Self> {
        Self::load(include_str!("policy.rego"))
    }

    pub(crate) fn load(policy: &str) -> anyhow::Result<Self> {
        let mut engine = Engine::new();
        engine.add_policy("policy.rego".to_owned(), policy.to_owned())?;
        let compiled = engine.compile_with_entrypoint(&Arc::from(ENTRY))?;
        let program = Compiler::compile_from_policy(&compiled, &[ENTRY])?;
        let mut vm = RegoVM::new_with_policy(compiled);
        vm.load_program(program);
        vm.set_max_instructions(limits::OPERATIONS as usize);
        vm.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: Duration::from_millis(limits::MILLIS),
            check_interval: NonZeroU32::new(1000).context("zero")?,
        }));
        Ok(Self { vm, status: "status".into(), headers: "headers".into(), body: "body".into() })
    }
}

impl Peer for Rego {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        let headers: BTreeMap<Value, Value> =
            question.headers().map(|(name, value)| (name.into(), value.into())).collect();
        let body = match question.content() {
            Some(_) => Value::from_json_str(question.text()).unwrap_or(Value::Null),
            None => Value::Null,
        };
        let input = BTreeMap::from([
            (self.status.clone(), u32::from(question.status).into()),
            (self.headers.clone(), headers.into()),
            (self.body.clone(), body),
        ]);
        self.vm.set_input(input.into());
        let answer = self.vm.execute()?;
        let answer: Vec<_> = answer.as_array()?.iter().collect();
        let [verdict, after, reason] = answer.as_slice() else { bail!("no decision: {answer:?}") };
        Decision::new(verdict.as_string()?, after.as_u64().ok(), &**reason.as_string()?)
    }
}
