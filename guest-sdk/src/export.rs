//! What [`export_policy!`](crate::export_policy) expands to. Not for authors.

use std::cell::OnceCell;

use crate::{
    Admission, Admit, Attempt, Configured, FallBack, Fallback, Hooks, Interest, Manifest, Message, Outcome, Settle,
    Settlement, interest,
};

pub use crate::bindings::Guest;

/// Exports a policy to the host.
///
/// `export_policy!(Type)` exports a unit struct that takes no configuration, and `export_policy!(Type, config =
/// Config)` a [`Configured`](crate::Configured) policy. Name and version are those of the crate. Once in a crate.
#[macro_export]
macro_rules! export_policy {
    ($policy:ident) => {
        impl $crate::Configured for $policy {
            type Config = $crate::NoConfig;

            fn new(_: $crate::NoConfig) -> ::std::result::Result<Self, ::std::string::String> {
                ::std::result::Result::Ok($policy)
            }
        }

        $crate::export_policy!($policy, config = $crate::NoConfig);
    };
    ($policy:ident, config = $config:ty) => {
        const _: () = {
            // Says so where it is written if the configuration named here is not the policy's.
            const _: fn($config) -> <$policy as $crate::Configured>::Config = |config| config;

            // Whichever of these traits the policy's own implementation does not shadow.
            use $crate::export::{DoesNotAdmit as _, DoesNotFallBack as _, DoesNotSettle as _};

            ::std::thread_local! {
                static POLICY: ::std::cell::OnceCell<$policy> = const { ::std::cell::OnceCell::new() };
            }

            impl $crate::export::Guest for $policy {
                fn describe() -> $crate::Manifest {
                    let mut hooks = $crate::Hooks::JUDGE;
                    hooks.set($crate::Hooks::ADMIT, $crate::export::Ask::<$policy>::ADMITS);
                    hooks.set($crate::Hooks::FALL_BACK, $crate::export::Ask::<$policy>::FALLS_BACK);
                    hooks.set($crate::Hooks::SETTLE, $crate::export::Ask::<$policy>::SETTLES);
                    $crate::export::describe::<$policy>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), hooks)
                }

                fn configure(
                    config: ::std::string::String,
                ) -> ::std::result::Result<$crate::Interest, ::std::string::String> {
                    POLICY.with(|policy| $crate::export::configure(policy, &config))
                }

                fn admit(message: $crate::Message) -> $crate::Admission {
                    POLICY.with(|policy| $crate::export::Ask($crate::export::ready(policy)).admit(&message))
                }

                fn judge(attempt: $crate::Attempt, outcome: $crate::Outcome) -> $crate::Decision {
                    POLICY.with(|policy| $crate::Policy::judge($crate::export::ready(policy), &attempt, &outcome))
                }

                fn fall_back(
                    attempt: $crate::Attempt,
                    last: $crate::Outcome,
                ) -> ::std::option::Option<$crate::Fallback> {
                    POLICY.with(|policy| $crate::export::Ask($crate::export::ready(policy)).fall_back(&attempt, &last))
                }

                fn settle(outcome: $crate::Outcome) -> $crate::Settlement {
                    POLICY.with(|policy| $crate::export::Ask($crate::export::ready(policy)).settle(&outcome))
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::bindings::export_world!($policy with_types_in $crate::bindings);
        };
    };
}

/// Asks a policy a question it may not answer itself. What the policy's type implements is found by name: an inherent
/// function, which exists only if the trait is implemented, comes before the `DoesNot…` trait's of the same name. This
/// holds only where the type is known, which is why it is asked in the macro's expansion.
pub struct Ask<'p, P>(pub &'p P);

impl<P: Admit> Ask<'_, P> {
    /// The policy answers it.
    pub const ADMITS: bool = true;

    /// Asks it.
    pub fn admit(&self, message: &Message) -> Admission {
        self.0.admit(message)
    }
}

impl<P: FallBack> Ask<'_, P> {
    /// The policy answers it.
    pub const FALLS_BACK: bool = true;

    /// Asks it.
    pub fn fall_back(&self, attempt: &Attempt, last: &Outcome) -> Option<Fallback> {
        self.0.fall_back(attempt, last)
    }
}

impl<P: Settle> Ask<'_, P> {
    /// The policy answers it.
    pub const SETTLES: bool = true;

    /// Asks it.
    pub fn settle(&self, outcome: &Outcome) -> Settlement {
        self.0.settle(outcome)
    }
}

/// The answer of a policy that does not answer *admit*.
pub trait DoesNotAdmit {
    /// It does not.
    const ADMITS: bool = false;

    /// Everything is sent.
    fn admit(&self, _: &Message) -> Admission {
        Admission::Accept
    }
}

/// The answer of a policy that does not answer *fall back*.
pub trait DoesNotFallBack {
    /// It does not.
    const FALLS_BACK: bool = false;

    /// The route decides.
    fn fall_back(&self, _: &Attempt, _: &Outcome) -> Option<Fallback> {
        None
    }
}

/// The answer of a policy that does not answer *settle*.
pub trait DoesNotSettle {
    /// It does not.
    const SETTLES: bool = false;

    /// It cannot tell; nothing is delivered unconfirmed.
    fn settle(&self, _: &Outcome) -> Settlement {
        Settlement::Unknown
    }
}

impl<P> DoesNotAdmit for Ask<'_, P> {}
impl<P> DoesNotFallBack for Ask<'_, P> {}
impl<P> DoesNotSettle for Ask<'_, P> {}

/// The manifest.
pub fn describe<P: Configured>(name: &str, version: &str, hooks: Hooks) -> Manifest {
    report_panics();
    let mut schema = schemars::schema_for!(P::Config);
    // Where every key has a default the configuration may be left out, and it is then passed as `null`.
    let is_object = schema.get("type").is_some_and(|kind| kind == "object");
    if is_object && serde_json::from_str::<P::Config>("{}").is_ok() {
        schema.insert("type".into(), serde_json::json!(["object", "null"]));
    }
    Manifest { name: name.into(), version: version.into(), config_schema: schema.to_value().to_string(), hooks }
}

/// Makes the policy, once.
///
/// # Errors
/// What is wrong with the configuration.
pub fn configure<P: Configured>(policy: &OnceCell<P>, config: &str) -> Result<Interest, String> {
    report_panics();
    let made = make::<P>(config)?;
    let interest = made.interest();
    policy.set(made).map_err(|_| "this instance is configured already".to_owned())?;
    interest::declare(&interest);
    Ok(interest)
}

/// Reads the configuration and makes the policy.
pub(crate) fn make<P: Configured>(config: &str) -> Result<P, String> {
    let config = if config.trim() == "null" { "{}" } else { config };
    let config = serde_json::from_str(config).map_err(|error| without_place(&error))?;
    P::new(config)
}

/// The policy of this instance.
pub fn ready<P>(policy: &OnceCell<P>) -> &P {
    policy.get().unwrap_or_else(|| panic!("the host asked a question before it called `configure`"))
}

/// What is wrong, without line and column: they count in the JSON that the host made, not in the operator's YAML.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

/// Lets a panic's message reach the decision's record before the instance traps.
fn report_panics() {
    #[cfg(target_family = "wasm")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|info| {
                let message = info.payload_as_str().unwrap_or("a value that is not text");
                match info.location() {
                    Some(at) => crate::error!("panicked at {}:{}: {message}", at.file(), at.line()),
                    None => crate::error!("panicked: {message}"),
                }
            }));
        });
    }
}
