//! What wit-bindgen makes of `wit/`. Nothing here is written by hand, and the rest of the crate gives these types
//! their methods.

#![expect(clippy::too_many_arguments, reason = "the contract's records are passed flat")]

wit_bindgen::generate!({
    path: "../wit",
    world: "policy",
    additional_derives: [PartialEq, Eq],
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "backstop_sdk::bindings",
});
