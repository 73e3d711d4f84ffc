//! A hostile guest without a test fails the build: for every `guests/hostile/{serving,refused}/NAME.wat` the module of
//! the scenarios is made to mention a function `hostile_NAME` (dashes as underscores).

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for folder in ["serving", "refused"] {
        let guests = Path::new("guests/hostile").join(folder);
        println!("cargo::rerun-if-changed={}", guests.display());
        let mut mentions = String::new();
        for entry in fs::read_dir(&guests)? {
            let path = entry?.path();
            let is_guest = path.extension().is_some_and(|extension| extension == "wat");
            if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_guest) {
                mentions += &format!("const _: fn() = super::hostile_{};\n", stem.replace('-', "_"));
            }
        }
        fs::write(out.join(format!("hostile_{folder}.rs")), mentions)?;
    }
    Ok(())
}
