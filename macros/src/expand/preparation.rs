//! Writes what `#[prepared]` stands for: a type that stands for the preparation, by the name of the function.
//!
//! ```text
//! #[prepared(net)]                      struct name {}
//! fn name() -> T { body }       →       impl Prepared for name {
//!                                           const TEST: &Test = {
//!                                               fn name() -> T { body }
//!                                               static PREPARATION: Test = Test { name, spec, ..Test::PLAIN };
//!                                               &PREPARATION
//!                                           };
//!                                       }
//! ```
//!
//! Nobody can call the function, so that it never runs outside of a sandbox. No value has its name, so that variables may. Where there are no
//! sandboxes, the type alone is there.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, FnArg, GenericParam, Safety};

use super::{constant, has_sandboxes};
use crate::args::Args;
use crate::function::Function;

/// Turns a function into a preparation. Where that can't be, the function is emitted as it stands, with the errors.
pub(crate) fn prepared(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let (args, mut error) = Args::parse(arguments.clone());
    let mut add = |new: Error| match &mut error {
        Some(error) => error.combine(new),
        none => *none = Some(new),
    };
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            add(Error::new_spanned(&item, "`#[prepared]` goes on a function: `#[prepared] fn name() { .. }`"));
            let errors = error.map(Error::into_compile_error);
            return quote!(#errors #item);
        }
    };
    unfit(&function).into_iter().for_each(&mut add);
    if !args.mount {
        let hint = "this preparation has the host's file system, and leaves nothing: write `mount` too";
        add(Error::new(Span::call_site(), hint));
    }
    let Function { attrs, vis, sig, body } = &function;
    if let Some(error) = error {
        let (errors, name, krate, has_sandboxes) =
            (error.into_compile_error(), &sig.ident, &args.krate, has_sandboxes());
        // A type stands in for it. So tests that name it get no second error.
        return quote! {
            #errors
            const _: () = { #function };
            #[allow(non_camel_case_types)]
            #vis struct #name {}
            #[cfg(#has_sandboxes)]
            impl #krate::__private::Prepared for #name {
                const TEST: &'static #krate::__private::Test = &#krate::__private::Test::PLAIN;
            }
        };
    }
    let (conditions, attrs): (Vec<_>, Vec<_>) = attrs.iter().partition(|attribute| attribute.path().is_ident("cfg"));
    let (docs, attrs): (Vec<_>, Vec<_>) = attrs.into_iter().partition(|attribute| attribute.path().is_ident("doc"));
    let (krate, name, has_sandboxes) = (&args.krate, &sig.ident, has_sandboxes());
    let constant = constant(&args, &arguments, &function, true);
    let span = Span::mixed_site().located_at(name.span());
    let test = quote_spanned! {span=>
        static __BELLJAR_PREPARATION: #krate::__private::Test = #constant;
        &__BELLJAR_PREPARATION
    };
    quote! {
        #(#conditions)*
        #(#docs)*
        #[allow(non_camel_case_types, reason = "it stands for a function")]
        #[cfg_attr(not(#has_sandboxes), allow(dead_code, reason = "no test starts from it there"))]
        #vis struct #name {}

        #(#conditions)*
        #[cfg(#has_sandboxes)]
        impl #krate::__private::Prepared for #name {
            const TEST: &'static #krate::__private::Test = {
                #(#attrs)*
                #sig #body
                #test
            };
        }
    }
}

/// What keeps `function` from being a preparation.
fn unfit(function: &Function) -> Vec<Error> {
    let signature = &function.sig;
    let mut errors = Vec::new();
    let is_of_tests = |attribute: &&Attribute| {
        ["test", "ignore", "should_panic", "isolated"].iter().any(|name| attribute.path().is_ident(name))
    };
    for attribute in function.attrs.iter().filter(is_of_tests) {
        errors.push(Error::new_spanned(attribute, "a preparation is no test: remove this"));
    }
    if let Some(asyncness) = &signature.asyncness {
        let hint = "an async preparation needs a runtime: write `fn`, and start one in the body";
        errors.push(Error::new(asyncness.span(), hint));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let hint = "a preparation is no method: write `fn` without `self`, outside of the `impl`";
        errors.push(Error::new_spanned(receiver, hint));
    } else if !signature.inputs.is_empty() {
        errors.push(Error::new_spanned(&signature.inputs, "a preparation takes no parameters: remove them"));
    }
    if let Some(parameter) = signature.generics.params.iter().find(|p| !matches!(p, GenericParam::Lifetime(_))) {
        errors.push(Error::new_spanned(parameter, "a preparation has no generic parameters: write one for each type"));
    }
    if let Safety::Unsafe(keyword) = &signature.safety {
        let hint = "a preparation is no unsafe function: put the `unsafe` block inside it";
        errors.push(Error::new(keyword.span(), hint));
    }
    errors
}
