//! Writes what is no test: the `main` of a program, and the description of a sandbox.
//!
//! ```text
//! #[isolated(net)]                      fn main() -> ExitCode {
//! fn main() -> T { body }       →           fn main() -> T { body }
//!                                           __private::main(const { &Test { name, spec, ..Test::PLAIN } })
//!                                       }
//!
//! spec!(net)                    →       __private::spec(const { &Test { name, spec, ..Test::PLAIN } })
//! ```

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error};

use super::{
    Above, ELSEWHERE, asked, constant, has_harness, has_sandboxes, is_standard_test, last_name, makes_tests, unfit,
};
use crate::args::Args;
use crate::function::Function;

/// Whether a function is the `main` of a program. Where there is a harness, nobody would call it: there it is a test of that name. One with a
/// runtime, such as `#[tokio::main]`, stays whole inside of that.
pub(super) fn is_main(function: &Function, above: &Above) -> bool {
    let is_test = |attribute: &Attribute| makes_tests(attribute) || is_standard_test(attribute);
    function.sig.ident == "main"
        && above.makers.is_empty()
        && !function.attrs.iter().any(is_test)
        && (!has_harness() || has_runtime(function))
}

/// Whether an attribute below turns an async `main` into an ordinary function.
fn has_runtime(function: &Function) -> bool {
    function.attrs.iter().any(|attribute| last_name(attribute.path()) == "main")
}

/// Turns the `main` of a program into one whose body runs in a sandbox.
pub(super) fn isolated_main(arguments: &TokenStream, function: &Function) -> TokenStream {
    let (args, error) = Args::parse(arguments.clone());
    let mut errors = Vec::from_iter(error);
    match &function.sig.asyncness {
        Some(_) if has_runtime(function) => {}
        Some(asyncness) => {
            let hint = "an async `main` needs a runtime: write `#[tokio::main]` below `#[isolated]`";
            errors.push(Error::new(asyncness.span(), hint));
        }
        None => errors.extend(unfit(function)),
    }
    if !errors.is_empty() {
        let errors = errors.into_iter().map(Error::into_compile_error);
        return quote!(#(#errors)* #function);
    }
    let Function { vis, sig, .. } = function;
    let (krate, name, has_sandboxes) = (&args.krate, &sig.ident, has_sandboxes());
    let constant = constant(&args, arguments, function, false);
    let span = Span::mixed_site().located_at(name.span());
    if has_harness() {
        let run = quote_spanned!(span=> #krate::__private::run(const { &#constant }));
        let Function { attrs, vis, sig, body } = function;
        let is_for_harness =
            |attribute: &&Attribute| ["ignore", "should_panic"].contains(&&*last_name(attribute.path()));
        let (for_harness, others): (Vec<_>, Vec<_>) = attrs.iter().partition(is_for_harness);
        let inner = quote!(#(#others)* #vis #sig #body);
        return quote! {
            #[::core::prelude::v1::test]
            #(#for_harness)*
            #[cfg_attr(not(#has_sandboxes), ignore = #ELSEWHERE)]
            #vis fn #name() {
                #[cfg(#has_sandboxes)]
                {
                    #inner
                    #run;
                }
                #[cfg(not(#has_sandboxes))]
                ::core::panic!(#ELSEWHERE);
            }
        };
    }
    let inside = quote_spanned! {span=>
        const { #krate::__private::must_be_a_program(::core::module_path!()) };
        #krate::__private::main(const { &#constant })
    };
    quote! {
        #[cfg(#has_sandboxes)]
        #vis fn #name() -> ::std::process::ExitCode {
            #function
            #inside
        }
        #[cfg(not(#has_sandboxes))]
        #vis fn #name() -> ::std::process::ExitCode {
            ::std::eprintln!(#ELSEWHERE);
            ::std::process::ExitCode::FAILURE
        }
    }
}

/// The description of a sandbox.
pub(crate) fn spec(arguments: TokenStream) -> TokenStream {
    let (args, error) = Args::parse(arguments.clone());
    let (errors, krate) = (error.map(Error::into_compile_error), &args.krate);
    let (written, spec, differences) =
        (arguments.to_string(), asked::spec(&args, false), asked::differences(&args, None));
    quote! {{
        #errors
        #krate::__private::spec(const {
            &#krate::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::spec! at ", ::core::file!(), ":", ::core::line!()),
                arguments: #written,
                spec: #spec,
                #differences
                ..#krate::__private::Test::PLAIN
            }
        })
    }}
}
