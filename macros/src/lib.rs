//! The `#[isolated]` attribute of [belljar](https://docs.rs/belljar), which re-exports it and documents it.
//!
//! This crate only turns tokens into tokens: `args` reads what stands in the parentheses, `function` what stands below, `above`
//! what stands above (in the file, by `lexer`), `items` what is in a module, and `expand` writes the test. What the words mean is decided in the runtime.

mod above;
mod args;
mod expand;
mod function;
mod items;
mod lexer;

use proc_macro::TokenStream;

/// Runs a test in a Linux sandbox of its own. See the documentation of `belljar::isolated`.
#[proc_macro_attribute]
pub fn isolated(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::isolated(args.into(), item.into()).into()
}

/// Runs once what tests start from. See the documentation of `belljar::prepared`.
#[proc_macro_attribute]
pub fn prepared(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::prepared(args.into(), item.into()).into()
}

/// Describes a sandbox. See the documentation of `belljar::spec`.
#[proc_macro]
pub fn spec(args: TokenStream) -> TokenStream {
    expand::spec(args.into()).into()
}

/// What `#[isolated]` leaves on a function that another attribute is to make a test of. Not for other use.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn isolated_case(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::isolated_case(args.into(), item.into()).into()
}

/// What `#[isolated]` leaves on what may be a test in a module that it stands on. Not for other use.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn isolated_in_module(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::isolated_in_module(args.into(), item.into()).into()
}
