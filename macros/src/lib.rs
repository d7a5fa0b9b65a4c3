//! The `#[isolated]` attribute of [belljar](https://docs.rs/belljar), which re-exports it and documents it.
//!
//! This crate only turns tokens into tokens: `args` reads what stands in the parentheses, `expand` writes the
//! test. What the words mean is decided in the runtime.

mod args;
mod expand;

use proc_macro::TokenStream;

/// Runs a test in a Linux sandbox of its own. See the documentation of `belljar::isolated`.
#[proc_macro_attribute]
pub fn isolated(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args.into(), item.into()).into()
}
