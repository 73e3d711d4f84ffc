//! A file becomes a policy: read, made a component, held against the contract, compiled, instantiated and asked what it
//! is. Only what passes all of that is ever served.
//!
//! The order is from cheap to dear: size, imports, interface and functions are looked at before anything is compiled,
//! since wasmtime bounds neither the time nor the memory that compiling takes, and both grow faster than a function.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmparser::{ComponentInstance, ComponentTypeRef, Parser, Payload, TypeBounds};
use wit_component::ComponentEncoder;

use super::Hooks;
use super::effort::{Effort, TooDear};
use super::failure::Failure;
use super::guest::Guest;
use super::host::one_line;
use super::sandbox::{MAX_MEMORY, Sandbox, SandboxError, bytes};
use super::schema::{ConfigSchema, Violation};
use super::v0_1::{Contract, VERSION};
use crate::config::PolicyLimits;
use crate::message::{PolicyRef, hex};

/// The largest file that is looked at.
pub(super) const MAX_FILE: usize = 32 << 20;

/// The longest function that is compiled, in bytes of its body. The longest in a policy that parses JSON is a tenth of
/// the half of it; Python's runtime has one of 417 KiB, straight code that fills in the addresses of what it links.
/// Besides, what takes memory and time to compile is weighed: see [`Effort`].
const MAX_FUNCTION: usize = 512 << 10;

/// Local variables of one function, without its parameters: some twenty times as many as policies in Rust have. The
/// most in JavaScript's runtime are 118, in Python's 271.
const MAX_LOCALS: u32 = 1000;

/// Functions in one file, those of the component's own that lead in and out of its modules included.
const MAX_FUNCTIONS: usize = 100_000;

/// What a policy may cost to say what it is, before any route says what it may: an interpreter starts up for it. This
/// is asked once for each file, on the thread that compiled it, which took far longer.
const DESCRIBE: PolicyLimits =
    PolicyLimits { fuel: 200_000_000, memory: MAX_MEMORY, time: Duration::from_secs(1), output: 1 << 20, failures: 1 };

/// Components within components. A policy is one, with its modules in it.
const MAX_DEPTH: usize = 8;

/// Instantiations of components written in one file. The compiler writes out every instance that comes to be, and a
/// component made of two of the next, which is made of two of the one after, has as many as two to the power of its
/// length; of so few, no more than some hundred can come. Policies have none: their languages' tools put modules
/// together, not components.
const MAX_INSTANTIATIONS: usize = 16;

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
    /// It is a folder, a pipe or a device.
    #[error("{path} is no file", path = .0.display())]
    NoFile(PathBuf),
    /// It is larger than 32 MiB.
    #[error("the file is larger than {}, which is more than any policy needs", bytes(MAX_FILE))]
    TooLarge,
    /// Its name is none that a policy can have.
    #[error("a policy's file is called NAME.wasm, with a NAME of a-z, 0-9 and '-'")]
    FileName,
    /// It is not WebAssembly.
    #[error("this is not WebAssembly; `backstop policy build` makes a policy's file from its crate")]
    NotWasm,
    /// Its bytes are WebAssembly, but broken.
    #[error("this is not valid WebAssembly: {0}")]
    Invalid(String),
    /// The sandbox does not run such WebAssembly: it is broken, or asks for more than any policy may have.
    #[error("the sandbox cannot run it: {0}")]
    Unsupported(String),
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
    /// It holds a function whose body is longer than 512 KiB.
    #[error("holds a function of {}, and the longest that is compiled is {}", bytes(*.0), bytes(MAX_FUNCTION))]
    FunctionTooLong(usize),
    /// It holds a function with more than 1,000 local variables.
    #[error("holds a function with {0} local variables, and the most that are compiled are {MAX_LOCALS}")]
    TooManyLocals(u32),
    /// It holds what would take too much memory or time to compile.
    #[error(transparent)]
    TooDear(#[from] TooDear),
    /// It holds more than 100,000 functions.
    #[error("holds more than {MAX_FUNCTIONS} functions, which is more than any policy needs")]
    TooManyFunctions,
    /// It instantiates components at more than 16 places.
    #[error("instantiates components at {0} places, and the most that are compiled are {MAX_INSTANTIATIONS}")]
    TooManyInstances(usize),
    /// Its components lie within each other.
    #[error("holds components more than {MAX_DEPTH} deep within each other, which no policy needs")]
    TooDeep,
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
    let sandbox = Sandbox::new(None).map_err(LoadError::Sandbox)?;
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
        let compiled =
            sandbox.compile(component).map_err(|error| LoadError::Unsupported(one_line(format!("{error:#}"), 1024)))?;
        let contract = Contract::new(sandbox.engine(), &compiled)
            .map_err(|error| LoadError::OtherWorld(one_line(format!("{error:#}"), 1024)))?;
        let manifest = Guest::describe(sandbox, &contract, &DESCRIBE).map_err(LoadError::Describe)?;
        if !is_name(&manifest.name) {
            return Err(LoadError::BadName(manifest.name));
        }
        let schema =
            ConfigSchema::parse(&manifest.config_schema).map_err(|error| LoadError::Schema(one_line(error, 1024)))?;
        let reference = PolicyRef { name: manifest.name, version: manifest.version, digest: digest(file) };
        Ok(Self { reference, hooks: manifest.hooks, schema, contract, imports, size: file.len() })
    }

    /// Whether it can ask about the message being decided.
    pub(super) fn reads_attributes(&self) -> bool {
        self.imports.iter().any(|import| import == "attribute")
    }

    /// What its schema refuses of a configuration; nothing where it has none.
    pub(super) fn violations(&self, config: &Value) -> Vec<Violation> {
        self.schema.as_ref().map_or_else(Vec::new, |schema| schema.violations(config))
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
    hex(&Sha256::digest(file))
}

/// Reads a file, and no more of it than a policy may have.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Read(path.to_owned(), error);
    // Opening a pipe waits for its other end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LoadError::NoFile(path.to_owned()));
    }
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
        match payload.map_err(invalid)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
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
    // The encoder asserts what it expects of the contract that is written into a file, and a file may hold anything.
    let encoded = std::panic::catch_unwind(|| {
        ComponentEncoder::default().validate(true).module(file).and_then(|mut encoder| encoder.encode())
    });
    match encoded {
        Ok(component) => component.map_err(|error| LoadError::OtherWorld(one_line(format!("{error:#}"), 1024))),
        Err(_) => Err(LoadError::OtherWorld("the contract written into it is broken".to_owned())),
    }
}

/// The functions that a component imports; refuses what is not the contract's.
fn imports_of_component(component: &[u8]) -> Result<Vec<String>, LoadError> {
    let mut imports = Vec::new();
    // Sections of nested modules and components are met as well: only the outermost imports are asked of the host.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(LoadError::TooDeep);
                }
            }
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

/// Refuses what would take too much memory or time to compile, in whatever module or component within it stands.
fn check_functions(component: &[u8]) -> Result<(), LoadError> {
    let mut functions = 0_usize;
    let mut effort = Effort::default();
    let mut instantiations = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::TypeSection(section) => {
                for group in section {
                    Effort::check_types(&group.map_err(invalid)?)?;
                }
            }
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
                effort.add(&body, locals).map_err(invalid)??;
                functions = functions.saturating_add(1);
            }
            Payload::ComponentCanonicalSection(section) => {
                functions = functions.saturating_add(usize::try_from(section.count()).unwrap_or(usize::MAX));
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    let made = matches!(instance.map_err(invalid)?, ComponentInstance::Instantiate { .. });
                    instantiations = instantiations.saturating_add(usize::from(made));
                }
            }
            _ => {}
        }
        if functions > MAX_FUNCTIONS {
            return Err(LoadError::TooManyFunctions);
        }
    }
    if instantiations > MAX_INSTANTIATIONS { Err(LoadError::TooManyInstances(instantiations)) } else { Ok(()) }
}

/// What the parser says, which may go over several lines, in one.
fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid(one_line(error.to_string(), 1024))
}

fn check_import(name: &str) -> Result<(), LoadError> {
    if is_allowed(name) {
        return Ok(());
    }
    match name.strip_prefix("backstop:policy/types@") {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => {
            Err(LoadError::OtherVersion { built_for: one_line(format!("backstop:policy@{version}"), 128) })
        }
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
    LoadError::ForbiddenImport { import: one_line(import, 256), hint }
}
