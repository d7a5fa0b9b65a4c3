//! The unit tests of the attribute, which lie beside its code.

#[path = "../macros/src/above.rs"]
mod above;
#[path = "../macros/src/args.rs"]
mod args;
#[path = "../macros/src/expand.rs"]
mod expand;
#[path = "../macros/src/function.rs"]
mod function;
