//! A file becomes a policy: read, made a component, held against the contract, compiled, instantiated and asked what it
//! is. Only what passes all of that is ever served.
//!
//! The order is from cheap to dear: size, imports, interface and functions are looked at before anything is compiled,
//! since wasmtime bounds neither the time nor the memory that compiling takes, and both grow faster than a function.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};
use wasmtime::component::Component;
use wit_component::ComponentEncoder;

use super::Hooks;
use super::failure::Failure;
use super::guest::Guest;
use super::sandbox::{Sandbox, SandboxError, bytes};
use super::schema::ConfigSchema;
use super::v0_1::{Contract, VERSION};
use crate::config::PolicyLimits;
use crate::message::PolicyRef;

/// The largest file that is looked at.
pub(super) const MAX_FILE: usize = 32 << 20;

/// The longest function that is compiled, in bytes of its body: ten times the longest in a policy that parses JSON.
///
/// The compiler's memory and time grow with a function's branches times its locals. At this bound and [`MAX_LOCALS`]
/// they come to 750 MiB and 4 s; at four times this length to 2.9 GiB and 33 s, at ten times the locals to 5.4 GiB.
const MAX_FUNCTION: usize = 256 << 10;

/// Local variables of one function, without its parameters: some twenty times as many as policies have.
const MAX_LOCALS: u32 = 1000;

/// Functions in one file, those of the component's own that lead in and out of its modules included.
const MAX_FUNCTIONS: usize = 100_000;

/// A policy, compiled and known to keep to the contract.
pub(super) struct Policy {
    pub(super) reference: PolicyRef,
    pub(super) hooks: Hooks,
    pub(super) schema: Option<ConfigSchema>,
    pub(super) contract: Contract,
    imports: Vec<String>,
    size: usize,
}

/// What a policy's file holds.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Its name: the file's must be the same.
    pub name: String,
    /// The author's version of it.
    pub version: String,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The file's size, in bytes.
    pub size: usize,
    /// The questions it answers itself.
    pub hooks: Hooks,
    /// The host's functions that it uses.
    pub imports: Vec<String>,
    /// The JSON Schema of its configuration; none when any will do.
    pub config_schema: Option<Value>,
}

/// Why a file is not served as a policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("failed to read {path}", path = .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is larger than 32 MiB.
    #[error("the file is larger than {}, which is more than any policy needs", bytes(MAX_FILE))]
    TooLarge,
    /// Its name is none that a policy can have.
    #[error("a policy's file is called NAME.wasm, with a NAME of a-z, 0-9 and '-'")]
    FileName,
    /// It is not WebAssembly.
    #[error("this is not WebAssembly; `backstop policy build` makes a policy's file from its crate")]
    NotWasm,
    /// Its bytes are WebAssembly, but broken, or use something that the sandbox does not offer.
    #[error("this is not valid WebAssembly: {0}")]
    Invalid(String),
    /// It is a plain module that says nothing of Backstop's contract.
    #[error(
        "this WebAssembly module says nothing of Backstop's contract: does its crate call `export_policy!`, and was it \
         built with `backstop policy build`?"
    )]
    NoInterface,
    /// It wants something that no policy may have.
    #[error("imports `{import}`: a policy may import only `log` and `attribute`; {hint}")]
    ForbiddenImport {
        /// The import, as the file names it.
        import: String,
        /// What it most likely comes from.
        hint: &'static str,
    },
    /// It holds a function whose body is longer than 256 KiB.
    #[error("holds a function of {}, and the longest that is compiled is {}", bytes(*.0), bytes(MAX_FUNCTION))]
    FunctionTooLong(usize),
    /// It holds a function with more than 1,000 local variables.
    #[error("holds a function with {0} local variables, and the most that are compiled are {MAX_LOCALS}")]
    TooManyLocals(u32),
    /// It holds more than 100,000 functions.
    #[error("holds more than {MAX_FUNCTIONS} functions, which is more than any policy needs")]
    TooManyFunctions,
    /// It was built for another version of the contract.
    #[error(
        "was built for {built_for}, and this host speaks backstop:policy@{VERSION}: build it again with this host's SDK"
    )]
    OtherVersion {
        /// The version it was built for.
        built_for: String,
    },
    /// It does not answer the contract's questions as the contract says.
    #[error("does not keep to backstop:policy@{VERSION}: {0}")]
    OtherWorld(String),
    /// It could not say what it is.
    #[error("failed to describe itself")]
    Describe(#[source] Failure),
    /// It is called otherwise than its file.
    #[error("calls itself `{manifest}`, so its file must be called `{manifest}.wasm`, not `{file}.wasm`")]
    OtherName {
        /// What it calls itself.
        manifest: String,
        /// What the file is called.
        file: String,
    },
    /// What it calls itself is no name.
    #[error("calls itself {0:?}: a policy's name is 1 to 64 of a-z, 0-9 and '-'")]
    BadName(String),
    /// The schema of its configuration is none.
    #[error("the JSON Schema of its configuration is broken: {0}")]
    Schema(String),
    /// There is nothing to load it with.
    #[error("failed to set up the sandbox")]
    Sandbox(#[source] SandboxError),
    /// The compiler gave up.
    #[error("the compiler failed on it: {0}")]
    Compile(String),
}

/// Loads the file at `path` aside and says what it holds. Blocks while it compiles.
///
/// # Errors
/// When the file would be refused as a policy.
pub fn inspect(path: &Path) -> Result<Description, LoadError> {
    let sandbox = Sandbox::new().map_err(LoadError::Sandbox)?;
    Policy::load(&Arc::new(sandbox), path).map(|policy| policy.describe())
}

impl Policy {
    /// Loads the file at `path`, whose name says what the policy must be called. Blocks while it compiles.
    pub(super) fn load(sandbox: &Arc<Sandbox>, path: &Path) -> Result<Self, LoadError> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| is_name(stem));
        Self::named(sandbox, name.ok_or(LoadError::FileName)?, &read(path)?)
    }

    /// Loads a policy from the bytes of the file that is called `name`.
    pub(super) fn named(sandbox: &Arc<Sandbox>, name: &str, file: &[u8]) -> Result<Self, LoadError> {
        let policy = Self::from_bytes(sandbox, file)?;
        if policy.reference.name == name {
            Ok(policy)
        } else {
            Err(LoadError::OtherName { manifest: policy.reference.name, file: name.to_owned() })
        }
    }

    /// Loads a policy from the bytes of a file, whatever it calls itself.
    pub(super) fn from_bytes(sandbox: &Arc<Sandbox>, file: &[u8]) -> Result<Self, LoadError> {
        if file.len() > MAX_FILE {
            return Err(LoadError::TooLarge);
        }
        let encoded;
        let component = if Parser::is_component(file) {
            file
        } else {
            encoded = make_component(file)?;
            &encoded
        };
        let imports = imports_of_component(component)?;
        check_functions(component)?;
        let compiled = Component::from_binary(sandbox.engine(), component)
            .map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        let contract =
            Contract::new(sandbox.engine(), &compiled).map_err(|error| LoadError::OtherWorld(format!("{error:#}")))?;
        let manifest = Guest::describe(sandbox, &contract, &PolicyLimits::default()).map_err(LoadError::Describe)?;
        if !is_name(&manifest.name) {
            return Err(LoadError::BadName(manifest.name));
        }
        let schema = ConfigSchema::parse(&manifest.config_schema).map_err(LoadError::Schema)?;
        let reference = PolicyRef { name: manifest.name, version: manifest.version, digest: digest(file) };
        Ok(Self { reference, hooks: manifest.hooks, schema, contract, imports, size: file.len() })
    }

    /// Whether it can ask about the message being decided.
    pub(super) fn reads_attributes(&self) -> bool {
        self.imports.iter().any(|import| import == "attribute")
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> Description {
        Description {
            name: self.reference.name.clone(),
            version: self.reference.version.clone(),
            digest: self.reference.digest.clone(),
            size: self.size,
            hooks: self.hooks,
            imports: self.imports.clone(),
            config_schema: self.schema.as_ref().map(|schema| schema.document.clone()),
        }
    }
}

/// Whether `name` can be a policy's.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// SHA-256, in hexadecimal.
pub(super) fn digest(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file, and no more of it than a policy may have.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Read(path.to_owned(), error);
    let mut file = Vec::new();
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    File::open(path).map_err(failed)?.take(most.saturating_add(1)).read_to_end(&mut file).map_err(failed)?;
    if file.len() > MAX_FILE { Err(LoadError::TooLarge) } else { Ok(file) }
}

/// Makes a plain module, as cargo builds it, into a component by the contract that the SDK wrote into it.
pub(super) fn make_component(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    if !Parser::is_core_wasm(file) {
        return Err(LoadError::NotWasm);
    }
    let mut has_interface = false;
    for payload in Parser::new(0).parse_all(file) {
        match payload.map_err(|error| LoadError::Invalid(error.to_string()))? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(|error| LoadError::Invalid(error.to_string()))?;
                    if import.module != "$root" && !import.module.starts_with("backstop:policy/") {
                        return Err(forbidden(format!("{}/{}", import.module, import.name)));
                    }
                    if import.module == "$root" && !is_allowed(import.name) {
                        return Err(forbidden(import.name.to_owned()));
                    }
                }
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => has_interface = true,
            _ => {}
        }
    }
    if !has_interface {
        return Err(LoadError::NoInterface);
    }
    ComponentEncoder::default()
        .validate(true)
        .module(file)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| LoadError::OtherWorld(format!("{error:#}")))
}

/// The functions that a component imports; refuses what is not the contract's.
fn imports_of_component(component: &[u8]) -> Result<Vec<String>, LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    let mut imports = Vec::new();
    // Sections of nested modules and components are met as well: only the outermost imports are asked of the host.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    match import.ty {
                        // A name for one of the contract's types asks nothing of the host.
                        ComponentTypeRef::Type(TypeBounds::Eq(_)) => continue,
                        ComponentTypeRef::Func(_) => imports.push(import.name.name.to_owned()),
                        _ => {}
                    }
                    check_import(import.name.name)?;
                }
            }
            _ => {}
        }
    }
    Ok(imports)
}

/// Refuses what would take too much memory to compile, in whatever module or component within it stands.
fn check_functions(component: &[u8]) -> Result<(), LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    let mut functions = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::CodeSectionEntry(body) => {
                let length = body.as_bytes().len();
                if length > MAX_FUNCTION {
                    return Err(LoadError::FunctionTooLong(length));
                }
                let mut locals = 0_u32;
                for group in body.get_locals_reader().map_err(invalid)? {
                    locals = locals.saturating_add(group.map_err(invalid)?.0);
                }
                if locals > MAX_LOCALS {
                    return Err(LoadError::TooManyLocals(locals));
                }
                functions = functions.saturating_add(1);
            }
            Payload::ComponentCanonicalSection(section) => {
                functions = functions.saturating_add(usize::try_from(section.count()).unwrap_or(usize::MAX));
            }
            _ => {}
        }
        if functions > MAX_FUNCTIONS {
            return Err(LoadError::TooManyFunctions);
        }
    }
    Ok(())
}

fn check_import(name: &str) -> Result<(), LoadError> {
    if is_allowed(name) {
        return Ok(());
    }
    match name.strip_prefix("backstop:policy/types@") {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => Err(LoadError::OtherVersion { built_for: format!("backstop:policy@{version}") }),
        None => Err(forbidden(name.to_owned())),
    }
}

fn is_allowed(name: &str) -> bool {
    matches!(name, "log" | "attribute")
}

/// Names the import, and the likely culprit.
fn forbidden(import: String) -> LoadError {
    let hint = if import.contains("wbindgen") || import.contains("wasm_bindgen") {
        "a crate it depends on thinks it runs in a browser: switch off the `js` or `wasm-bindgen` features of crates \
         like `getrandom`, `uuid`, `chrono` or `time` (`cargo tree -i wasm-bindgen` shows which)"
    } else if import.contains("random") {
        "a policy has no randomness: the host draws the jitter (`cargo tree -i getrandom` shows which crate wants it)"
    } else if import.starts_with("wasi") {
        "it was built for WASI: build it for wasm32-unknown-unknown with `backstop policy build`"
    } else if import.starts_with("env/") {
        "something in it declares an `extern` function that nothing provides: look for an `extern` block, or for a \
         dependency that holds C code"
    } else {
        "build it with `backstop policy build`, without other runtimes"
    };
    LoadError::ForbiddenImport { import, hint }
}
