//! Rhai: a script parsed once, evaluated by walking its tree or, with the feature `grain`, as bytecode. No variable
//! outlives a call, so that every decision is on fresh state.

use anyhow::{Context, anyhow, bail};
use rhai::grain::{Compiler, Program, Vm};
use rhai::{AST, Array, CallFnOptions, Dynamic, Engine, EvalAltResult, Map, Scope};

use crate::{Body, Decision, Peer, Question, limits};

const POLICY: &str = include_str!("policy.rhai");

/// A script and the engine that runs it.
pub struct Rhai {
    engine: Engine,
    ast: AST,
    /// The script as bytecode, if that is what runs.
    bytecode: Option<Program<'static>>,
    body: Body,
}

impl Rhai {
    /// Compiles the policy, to be run as its tree.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn new(body: Body) -> anyhow::Result<Self> {
        let code = match body {
            Body::Whole => "body?.Response?.Error?.Code",
            Body::Pointer => "json_pointer(body, \"/Response/Error/Code\")",
        };
        Self::load(&POLICY.replace("CODE", code), body)
    }

    pub(crate) fn load(policy: &str, body: Body) -> anyhow::Result<Self> {
        let mut engine = Engine::new();
        engine
            .set_max_operations(limits::OPERATIONS.into())
            .set_max_call_levels(32)
            .set_max_expr_depths(32, 32)
            .set_max_variables(256)
            .set_max_string_size(1 << 20)
            .set_max_array_size(1 << 16)
            .set_max_map_size(1 << 16)
            .disable_symbol("eval");
        engine.register_fn("json_pointer", |body: &mut rhai::Blob, pointer: &str| -> Dynamic {
            crate::text_at(body, pointer).map_or(Dynamic::UNIT, Dynamic::from)
        });
        let ast = engine.compile(policy).map_err(|error| anyhow!("{error}"))?;
        Ok(Self { engine, ast, bytecode: None, body })
    }

    /// Compiles the policy to bytecode.
    ///
    /// # Errors
    /// When it does not compile, or not wholly to bytecode.
    pub fn bytecode(body: Body) -> anyhow::Result<Self> {
        Self::new(body)?.lowered()
    }

    pub(crate) fn lowered(self) -> anyhow::Result<Self> {
        let program = Compiler::new().compile(&self.ast);
        match program.residual_count() {
            0 => Ok(Self { bytecode: Some(program), ..self }),
            left => bail!("{left} parts of the script are no bytecode"),
        }
    }
}

impl Peer for Rhai {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        let status = i64::from(question.status);
        let headers: Map = question.headers().map(|(name, value)| (name.into(), value.into())).collect();
        let body: Dynamic = match self.body {
            Body::Whole => {
                let json = question.content().and_then(|body| serde_json::from_slice(body).ok());
                json.unwrap_or(Dynamic::UNIT)
            }
            Body::Pointer => Dynamic::from_blob(question.body.to_vec()),
        };
        let mut scope = Scope::new();
        let options = CallFnOptions::new().eval_ast(false);
        let arguments = (status, headers, body);
        let answer: Result<Array, Box<EvalAltResult>> = match &self.bytecode {
            // A machine counts operations for as long as it lives: one for each decision, as for the tree.
            Some(program) => {
                Vm::new(&self.engine).call_fn_with_options(options, &mut scope, program, "judge", arguments)
            }
            None => self.engine.call_fn_with_options(options, &mut scope, &self.ast, "judge", arguments),
        };
        let answer = answer.map_err(|error| anyhow!("{error}"))?;
        let [verdict, after, reason] = <[Dynamic; 3]>::try_from(answer).map_err(|_| anyhow!("no decision"))?;
        let after = after.as_int().ok().and_then(|after| u64::try_from(after).ok());
        let verdict = verdict.into_immutable_string().ok().context("no verdict")?;
        Decision::new(&verdict, after, reason.into_string().ok().context("no reason")?)
    }
}
