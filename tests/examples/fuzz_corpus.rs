//! Writes the corpus of the fuzz target `load` anew, which is needed when the contract has changed.
//!
//! ```text
//! cargo run -p backstop-tests --example fuzz_corpus
//! ```

use std::fs;
use std::io;

use backstop_tests::artefacts::workspace;
use backstop_tests::hand_made::HandMade;

/// Hostile guests, each refused at another step.
const REFUSED: [&str; 9] = [
    "imports-wasi",
    "imports-of-the-contract",
    "component-of-components",
    "judge-of-another-type",
    "name-not-utf8",
    "schema-of-itself",
    "start-loops",
    "memory-huge",
    "imports-a-component",
];

fn main() -> io::Result<()> {
    let folder = workspace().join("host/fuzz/corpus/load");
    fs::create_dir_all(&folder)?;
    let plain = HandMade::named("parrot");
    let module = plain.file();
    fs::write(folder.join("half-a-module"), &module[..module.len() / 2])?;
    fs::write(folder.join("module"), module)?;
    fs::write(folder.join("component"), plain.component())?;
    fs::write(folder.join("empty"), "")?;
    fs::write(folder.join("not-wasm"), "#!/bin/sh\nexit 1\n")?;
    for name in REFUSED {
        fs::write(folder.join(name), HandMade::hostile("refused", name).file())?;
    }
    Ok(())
}
