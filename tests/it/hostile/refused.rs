//! Guests that must never serve. Each is dropped in over a version that serves, which then goes on serving.

use backstop_tests::hand_made::HandMade;

use super::stage::{Stage, said_at_start};

mod every_guest_has_a_test {
    include!(concat!(env!("OUT_DIR"), "/hostile_refused.rs"));
}

/// The guest is refused in words that contain `why`, the version before it serves on, the other route does not notice,
/// and what is mended is taken up.
async fn is_refused(name: &str, why: &str) {
    let stage = Stage::before(name).await;
    stage.replace(&HandMade::hostile("refused", name).file());
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(why.split('|').any(|why| refusal.contains(why)), "{refusal:?} does not say {why:?}");
    stage.is_judged_by_version("1").await;
    stage.others_do_not_notice().await;
    stage.replace(&HandMade::named(name).version("mended").file());
    stage.serves_in_version("mended").await;
}

#[tokio::test]
async fn hostile_describe_loops() {
    is_refused("describe-loops", "failed to describe itself: out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_describe_traps() {
    is_refused("describe-traps", "failed to describe itself: trapped: wasm trap: wasm `unreachable`").await;
}

#[tokio::test]
async fn hostile_name_of_another() {
    is_refused("name-of-another", "calls itself `standard`, so its file must be called `standard.wasm`").await;
}

#[tokio::test]
async fn hostile_name_enormous() {
    is_refused("name-enormous", "a policy's name is 1 to 64 of a-z, 0-9 and '-'").await;
}

#[tokio::test]
async fn hostile_name_not_utf8() {
    is_refused("name-not-utf8", "failed to describe itself: ").await;
}

#[tokio::test]
async fn hostile_schema_enormous() {
    is_refused("schema-enormous", "failed to describe itself: answered nonsense: its answer is longer than 1 MiB")
        .await;
}

#[tokio::test]
async fn hostile_schema_not_json() {
    is_refused("schema-not-json", "the JSON Schema of its configuration is broken: it is not JSON").await;
}

#[tokio::test]
async fn hostile_schema_of_itself() {
    is_refused("schema-of-itself", "a part of it is explained by itself, without end").await;
}

#[tokio::test]
async fn hostile_schema_in_a_circle() {
    is_refused("schema-in-a-circle", "a part of it is explained by itself, without end").await;
}

#[tokio::test]
async fn hostile_schema_exponential() {
    is_refused("schema-exponential", "it unfolds to more than 10000 checks of one value").await;
}

#[tokio::test]
async fn hostile_schema_of_elsewhere() {
    is_refused("schema-of-elsewhere", "the JSON Schema of its configuration is broken").await;
}

#[tokio::test]
async fn hostile_configure_loops() {
    is_refused("configure-loops", "the policy fails under this configuration: out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_configure_traps() {
    is_refused("configure-traps", "the policy fails under this configuration: trapped").await;
}

#[tokio::test]
async fn hostile_configure_panics() {
    is_refused("configure-panics", "the policy fails under this configuration: panicked: no such a config").await;
}

#[tokio::test]
async fn hostile_configure_answers_nonsense() {
    is_refused("configure-answers-nonsense", "the policy fails under this configuration: ").await;
}

#[tokio::test]
async fn hostile_configure_refuses_at_length() {
    is_refused("configure-refuses-at-length", "the policy refuses its configuration: !!!").await;
}

#[tokio::test]
async fn hostile_interest_in_too_much() {
    is_refused("interest-in-too-much", "65 header fields, at most 64").await;
}

#[tokio::test]
async fn hostile_interest_in_no_name() {
    is_refused("interest-in-no-name", "no header field is called").await;
}

#[tokio::test]
async fn hostile_judge_traps_at_rehearsal() {
    is_refused("judge-traps-at-rehearsal", "the policy fails under this configuration: trapped").await;
}

#[tokio::test]
async fn hostile_judge_loops_at_rehearsal() {
    is_refused("judge-loops-at-rehearsal", "the policy fails under this configuration: out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_start_loops() {
    is_refused("start-loops", "failed to describe itself: out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_start_traps() {
    is_refused("start-traps", "failed to describe itself: trapped").await;
}

#[tokio::test]
async fn hostile_start_recurses() {
    is_refused("start-recurses", "failed to describe itself: out of stack").await;
}

#[tokio::test]
async fn hostile_start_fills_memory() {
    is_refused("start-fills-memory", "failed to describe itself: out of ").await;
}

#[tokio::test]
async fn hostile_memory_huge() {
    is_refused("memory-huge", "the sandbox cannot run it: ").await;
}

#[tokio::test]
async fn hostile_memory_beyond_the_limit() {
    is_refused(
        "memory-beyond-the-limit",
        "the policy fails under this configuration: out of memory: it wanted 17 MiB of memory, its limit is 16 MiB",
    )
    .await;
}

#[tokio::test]
async fn hostile_memory_shared() {
    is_refused("memory-shared", "the sandbox cannot run it: ").await;
}

#[tokio::test]
async fn hostile_memory_of_64_bits() {
    is_refused("memory-of-64-bits", "the sandbox cannot run it: ").await;
}

#[tokio::test]
async fn hostile_memories_many() {
    is_refused("memories-many", "memories").await;
}

#[tokio::test]
async fn hostile_table_huge() {
    is_refused("table-huge", "table").await;
}

#[tokio::test]
async fn hostile_tables_many() {
    is_refused("tables-many", "tables").await;
}

#[tokio::test]
async fn hostile_data_beyond_memory() {
    is_refused("data-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_imports_wasi() {
    is_refused(
        "imports-wasi",
        "imports `wasi_snapshot_preview1/environ_get`: a policy may import only `log` and `attribute`",
    )
    .await;
}

#[tokio::test]
async fn hostile_imports_c() {
    is_refused("imports-c", "imports `env/gettimeofday`: a policy may import only `log` and `attribute`").await;
}

#[tokio::test]
async fn hostile_imports_a_clock() {
    is_refused("imports-a-clock", "imports `now`: a policy may import only `log` and `attribute`").await;
}

#[tokio::test]
async fn hostile_imports_of_the_contract() {
    is_refused("imports-of-the-contract", "does not keep to backstop:policy@0.1.0").await;
}

#[tokio::test]
async fn hostile_imports_log_of_another_type() {
    is_refused("imports-log-of-another-type", "does not keep to backstop:policy@0.1.0").await;
}

#[tokio::test]
async fn hostile_imports_wasi_as_a_component() {
    is_refused(
        "imports-wasi-as-a-component",
        "imports `wasi:cli/environment@0.2.3`: a policy may import only `log` and `attribute`",
    )
    .await;
}

#[tokio::test]
async fn hostile_imports_a_module() {
    is_refused("imports-a-module", "imports `code`: a policy may import only `log` and `attribute`").await;
}

#[tokio::test]
async fn hostile_imports_a_component() {
    is_refused("imports-a-component", "component imports are not supported").await;
}

#[tokio::test]
async fn hostile_imports_log_of_another_type_as_a_component() {
    is_refused("imports-log-of-another-type-as-a-component", "does not keep to backstop:policy@0.1.0").await;
}

#[tokio::test]
async fn hostile_exports_nothing() {
    is_refused("exports-nothing", "does not keep to backstop:policy@0.1.0: no export").await;
}

#[tokio::test]
async fn hostile_exports_another_world() {
    is_refused("exports-another-world", "does not keep to backstop:policy@0.1.0: no export").await;
}

#[tokio::test]
async fn hostile_version_of_the_future() {
    is_refused(
        "version-of-the-future",
        "was built for backstop:policy@7.0.0, and this host speaks backstop:policy@0.1.0",
    )
    .await;
}

#[tokio::test]
async fn hostile_module_without_metadata() {
    is_refused("module-without-metadata", "this WebAssembly module says nothing of Backstop's contract").await;
}

#[tokio::test]
async fn hostile_module_with_broken_metadata() {
    is_refused("module-with-broken-metadata", "does not keep to backstop:policy@0.1.0").await;
}

#[tokio::test]
async fn hostile_judge_of_another_type() {
    is_refused("judge-of-another-type", "does not keep to backstop:policy@0.1.0").await;
}

#[tokio::test]
async fn hostile_component_of_components() {
    is_refused(
        "component-of-components",
        "instantiates components at 81 places, and the most that are compiled are 16",
    )
    .await;
}

#[tokio::test]
async fn hostile_guests_keep_a_host_from_starting_and_it_says_why() {
    for (name, why) in [
        ("describe-loops", "failed to describe itself: out of fuel|out of time"),
        ("configure-traps", "the policy fails under this configuration: trapped"),
        ("start-loops", "out of fuel|out of time"),
        ("imports-wasi", "imports `wasi_snapshot_preview1/environ_get`"),
        ("memory-huge", "the sandbox cannot run it: "),
        ("component-of-components", "instantiates components at 81 places, and the most that are compiled are 16"),
    ] {
        let said = said_at_start(name, &HandMade::hostile("refused", name).file()).await;
        assert!(
            said.contains(&format!("policy `{name}`: ")) && why.split('|').any(|why| said.contains(why)),
            "{said:?} does not say {why:?}"
        );
    }
}
