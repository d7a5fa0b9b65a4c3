//! Writes the test that `#[isolated]` stands for.
//!
//! ```text
//! #[isolated(net)]                      #[test]
//! #[should_panic]                       #[should_panic]
//! fn name() -> T { body }       →       fn name() {
//!                                           fn name() -> T { body }
//!                                           run(const { &Test { name, spec, .. } })
//!                                       }
//! ```
//!
//! The attributes stay on the outer function, where the harness looks for them and lint levels reach the inner one.
//! The inner function keeps its name, so that backtraces read as they would without us, and nothing else is named
//! there that the body could see.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, TokenStreamExt as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{
    AttrStyle, Attribute, Error, Expr, ExprLit, GenericParam, ItemFn, Lit, LitStr, Meta, MetaNameValue, Path, Safety,
};

use crate::args::{Args, Bind, Ids, Root};

/// Turns a function into an isolated test. Where that can't be, the function is emitted as it stands, with the errors.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let (args, mut error) = Args::parse(arguments.clone());
    let mut add = |new: Error| match &mut error {
        Some(error) => error.combine(new),
        none => *none = Some(new),
    };
    let function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            add(Error::new_spanned(&item, "`#[isolated]` goes on a test function: `#[isolated] fn name() { .. }`"));
            let errors = error.map(Error::into_compile_error);
            return quote!(#errors #item);
        }
    };
    // A runtime's attribute below ours makes the function that we are to isolate: let it go first.
    let runtime = function.attrs.iter().position(is_runtime_attribute);
    if runtime.is_none() {
        for error in unfit(&function) {
            add(error);
        }
    }
    match (error, runtime) {
        (Some(error), _) => {
            let errors = error.into_compile_error();
            quote!(#errors #function)
        }
        (None, Some(_)) => below_the_others(&args.krate, &arguments, function),
        (None, None) => isolated_test(&args, &arguments, &function),
    }
}

/// What keeps `function` from being a test.
fn unfit(function: &ItemFn) -> Vec<Error> {
    let signature = &function.sig;
    let mut errors = Vec::new();
    if let Some(asyncness) = &signature.asyncness {
        let hint = "an async test needs a runtime: write `#[tokio::test]` below `#[isolated]`";
        errors.push(Error::new(asyncness.span(), hint));
    }
    if !signature.inputs.is_empty() {
        let hint =
            "a test takes no parameters: remove them, or write `#[isolated]` below the attribute that supplies them";
        errors.push(Error::new_spanned(&signature.inputs, hint));
    }
    if let Some(parameter) = signature.generics.params.iter().find(|p| !matches!(p, GenericParam::Lifetime(_))) {
        let hint = "a test has no generic parameters: write one test for each type";
        errors.push(Error::new_spanned(parameter, hint));
    }
    if let Safety::Unsafe(keyword) = &signature.safety {
        errors.push(Error::new(keyword.span(), "a test is no unsafe function: put the `unsafe` block inside it"));
    }
    errors
}

/// Whether this is an attribute like `#[tokio::test]`, which makes a test of an async function.
fn is_runtime_attribute(attribute: &Attribute) -> bool {
    let path = attribute.path();
    path.segments.len() > 1 && ends_in_test(path) && !is_standard_test(attribute)
}

/// Whether this is `#[test]`, by its own name or by a path into the standard library.
fn is_standard_test(attribute: &Attribute) -> bool {
    let path = attribute.path();
    let standard = path.segments.first().is_some_and(|root| root.ident == "core" || root.ident == "std");
    ends_in_test(path) && (path.segments.len() == 1 || standard)
}

fn ends_in_test(path: &Path) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == "test")
}

/// The same function, with our attribute below all others.
fn below_the_others(krate: &Path, args: &TokenStream, mut function: ItemFn) -> TokenStream {
    function.attrs.push(syn::parse_quote!(#[#krate::isolated(#args)]));
    quote!(#function)
}

/// The test itself.
fn isolated_test(args: &Args, arguments: &TokenStream, function: &ItemFn) -> TokenStream {
    let Args {
        net, mount, timeout, memory, pids, cpu, tmpfs, hostname, user, time, binds, env, clear_env, krate, ..
    } = args;
    let ItemFn { attrs, vis, sig, block, .. } = function;
    let name = &sig.ident;
    let test_attribute = (!attrs.iter().any(is_standard_test)).then(|| quote!(#[::core::prelude::v1::test]));
    let written = arguments.to_string();
    let should_panic = option(should_panic(attrs).map(ToTokens::into_token_stream));
    let skip_unsupported = args.skip_unsupported;
    let timeout = option(timeout.map(duration));
    let [memory, tmpfs] = [memory, tmpfs].map(|bytes| literal(bytes.as_ref()));
    let [pids, cpu] = [pids, cpu].map(|number| literal(number.as_ref()));
    let hostname = literal(hostname.as_ref());
    let user = option(user.map(|(uid, gid)| quote!((#uid, #gid))));
    let root = match &args.root {
        Root::Tmpfs => quote!(Tmpfs),
        Root::Overlay => quote!(Overlay),
        Root::Directory(path) => quote!(Directory(#path)),
    };
    let ids = match args.ids {
        Ids::One => quote!(One),
        Ids::Range(ids) => quote!(Range(#ids)),
        Ids::Host => quote!(Host),
    };
    let time = option(time.map(|clocks| {
        let clocks = clocks.map(duration);
        quote!([#(#clocks),*])
    }));
    let binds = binds.iter().map(
        |Bind { from, to, writable }| quote!(#krate::__private::Bind { from: #from, to: #to, writable: #writable }),
    );
    let env = env.iter().map(|(name, value)| quote!((#name, #value)));
    // Attributes that stand inside the body belong there.
    let (inner, outer): (Vec<_>, Vec<_>) =
        attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let mut braced = TokenStream::new();
    block.brace_token.surround(&mut braced, |tokens| {
        tokens.append_all(inner);
        tokens.append_all(&block.stmts);
    });
    // A function of another ABI is no `fn() -> T`.
    let body = if sig.abi.is_some() { quote!(|| #name()) } else { quote!(#name) };
    // Errors in what we write point at the function's name, not at the whole attribute.
    let span = Span::mixed_site().located_at(name.span());
    let run = quote_spanned! {span=>
        #krate::__private::run(const {
            &#krate::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                arguments: #written,
                spec: #krate::__private::Spec {
                    net: #net,
                    mount: #mount,
                    root: #krate::__private::Root::#root,
                    tmpfs: #tmpfs,
                    hostname: #hostname,
                    user: #user,
                    ids: #krate::__private::Ids::#ids,
                    time: #time,
                    binds: &[#(#binds),*],
                    memory: #memory,
                    pids: #pids,
                    cpu: #cpu,
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                },
                timeout: #timeout,
                env: &[#(#env),*],
                clear_env: #clear_env,
                skip_unsupported: #skip_unsupported,
                should_panic: #should_panic,
                body: || #krate::__private::status(#body),
            }
        })
    };
    quote! {
        #(#outer)*
        #test_attribute
        #vis fn #name() {
            #sig #braced
            #run
        }
    }
}

/// The text that a panic is expected to have, if one is expected. What the harness would not take, it will say itself.
fn should_panic(attrs: &[Attribute]) -> Option<LitStr> {
    let attribute = attrs.iter().find(|attribute| attribute.path().is_ident("should_panic"))?;
    let any = LitStr::new("", Span::call_site());
    let value = match &attribute.meta {
        Meta::Path(_) => return Some(any),
        Meta::NameValue(pair) => pair.value.clone(),
        Meta::List(list) => match list.parse_args::<MetaNameValue>() {
            Ok(pair) => pair.value,
            Err(_) => return Some(any),
        },
    };
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        _ => Some(any),
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn literal(value: Option<impl ToTokens>) -> TokenStream {
    option(value.map(ToTokens::into_token_stream))
}

fn duration(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: TokenStream, item: TokenStream) -> String {
        expand(args, item).to_string().replace(' ', "")
    }

    fn tests_in(text: &str) -> usize {
        text.matches("#[test]").count() + text.matches("#[::core::prelude::v1::test]").count()
    }

    #[test]
    fn makes_a_test_unless_there_is_one() {
        for item in [
            quote!(
                fn a() {}
            ),
            quote!(
                #[test]
                fn a() {}
            ),
            quote!(
                #[::core::prelude::v1::test]
                fn a() {}
            ),
            quote!(
                #[should_panic(expected = "x")]
                fn a() {}
            ),
        ] {
            let text = expanded(quote!(), item);
            assert_eq!(tests_in(&text), 1, "{text}");
            assert!(text.contains("__private::run"), "{text}");
        }
    }

    #[test]
    fn a_runtime_attribute_goes_first() {
        let text = expanded(
            quote!(net, timeout = "90s"),
            quote!(
                #[tokio::test(flavor = "x")]
                async fn a() {}
            ),
        );
        let ours = "#[::belljar::isolated(net,timeout=\"90s\")]asyncfna(){}";
        assert!(text.ends_with(ours), "{text}");
        assert!(text.starts_with("#[tokio::test"), "{text}");
    }

    #[test]
    fn an_unfit_function_is_emitted_with_all_its_errors() {
        let text = expanded(
            quote!(nett),
            quote!(
                async unsafe fn a<T>(b: T) {}
            ),
        );
        assert_eq!(text.matches("compile_error!").count(), 5, "{text}");
        assert!(text.ends_with("asyncunsafefna<T>(b:T){}"), "{text}");
    }

    #[test]
    fn what_is_no_function_is_kept() {
        let text = expanded(
            quote!(),
            quote!(
                struct A;
            ),
        );
        assert!(text.contains("compile_error!") && text.ends_with("structA;"), "{text}");
    }
}
