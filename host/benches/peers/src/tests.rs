//! The limits that the contestants claim to have on bite.

use backstop::message::{Outcome, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::extism::Compiled;
use crate::javascript::JavaScript;
use crate::lua::Lua;
use crate::rego::Rego;
use crate::rhai::Rhai;
use crate::{Body, Peer, Question};

/// Asks a peer a question, and returns why it failed.
fn failure(peer: anyhow::Result<impl Peer>) -> String {
    let body = Bytes::from_static(b"{}");
    let outcome =
        Outcome::Response(Response { status: StatusCode::OK, headers: HeaderMap::new(), body, truncated: false });
    let question = Question::of(&outcome).expect("there is an answer");
    let mut peer = peer.expect("it compiles");
    let first = format!("{:#}", peer.judge(&question).expect_err("the first question"));
    // The limit is on each question: a peer that has used one up has it again.
    assert!(peer.judge(&question).is_err());
    first
}

#[test]
fn an_endless_loop_is_stopped() {
    let lua = failure(Lua::load(b"return function() while true do end end", Body::Whole));
    assert!(lua.contains("out of instructions"), "{lua}");
    let javascript = failure(JavaScript::load("(function () { for (;;) {} })".to_owned(), Body::Whole));
    assert!(javascript.contains("interrupted"), "{javascript}");
    let rhai = || Rhai::load("fn judge(status, headers, body) { loop { let x = 1; } }", Body::Whole);
    assert!(failure(rhai()).contains("operations"));
    assert!(failure(rhai().and_then(Rhai::lowered)).contains("operations"));
    let extism =
        Compiled::new(br#"(module (func (export "judge") (result i32) (loop (br 0)) (i32.const 0)))"#.to_vec());
    let extism = extism.and_then(|compiled| compiled.instance());
    assert!(failure(extism).contains("fuel"));
}

#[test]
fn much_work_on_little_input_is_stopped() {
    let policy = "package retry\n\ndecision := count([1 | some x in numbers.range(1, 10000); some y in numbers.range(1, 10000)])";
    let rego = failure(Rego::load(policy));
    assert!(rego.contains("limit"), "{rego}");
}

#[test]
fn memory_without_end_is_refused() {
    let lua = failure(Lua::load(b"return function() local s = 'x' while true do s = s .. s end end", Body::Whole));
    assert!(lua.contains("memory"), "{lua}");
    let javascript = "(function () { let a = []; for (;;) a.push(new Array(1000).fill(a.length)); })";
    let javascript = failure(JavaScript::load(javascript.to_owned(), Body::Whole));
    assert!(javascript.contains("memory"), "{javascript}");
    let rhai = "fn judge(status, headers, body) { let s = \"x\"; loop { s += s; } }";
    assert!(failure(Rhai::load(rhai, Body::Whole)).contains("too large"));
    let grows = br#"(module (memory 1) (func (export "judge") (result i32) (memory.grow (i32.const 300))))"#;
    let extism = failure(Compiled::new(grows.to_vec()).and_then(|compiled| compiled.instance()));
    assert!(extism.contains("oom"), "{extism}");
}
