//! Writes the test that `#[isolated]` stands for.
//!
//! ```text
//! #[isolated(net)]                      #[test]
//! #[should_panic]                       #[should_panic]
//! fn name() -> T { body }       →       fn name() {
//!                                           fn name() -> T { body }
//!                                           run(const { &Test { name, spec, ..Test::PLAIN } })
//!                                       }
//! ```
//!
//! Where there are no sandboxes, on other systems and under Miri, a test without a body stands in its place, and is ignored.
//!
//! The attributes stay on the outer function, where the harness looks for them and lint levels reach the inner one.
//! The inner function keeps its name, so that backtraces read as they would without us, and nothing else is named
//! there that the body could see.

mod asked;
#[cfg(test)]
mod expansions;
mod module;
#[cfg(test)]
mod modules;
mod preparation;
mod program;
#[cfg(test)]
mod tests;

use std::env;

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericParam, Lit, LitStr, Meta, MetaNameValue, Path, ReturnType, Safety,
};

pub(crate) use module::isolated_in_module;
pub(crate) use preparation::prepared;
pub(crate) use program::spec;

use crate::above::{Above, above, is_file_lock, is_lock, is_maker};
use crate::args::Args;
use crate::function::Function;
use crate::items::{Item, Kind, items};

/// Why a test is ignored, and fails if it is run nevertheless.
const ELSEWHERE: &str =
    "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have";

/// The condition under which there are sandboxes. Unless told otherwise, rust-analyzer reads code as if it were for Miri, and would then
/// take the body for dead, and run the test as one that is ignored.
fn has_sandboxes() -> TokenStream {
    let server = env::current_exe().unwrap_or_default();
    let is_editor = server.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rust-analyzer"));
    if is_editor { quote!(target_os = "linux") } else { quote!(all(target_os = "linux", not(miri))) }
}

/// Turns a function into an isolated test. Where that can't be, the function is emitted as it stands, with the errors.
pub(crate) fn isolated(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, |function| above(Span::call_site(), &function.sig.ident))
}

/// The same for a function of which another attribute has made a test, or will.
pub(crate) fn isolated_case(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, |_| Above { makers: vec![None], ..Above::default() })
}

fn expand(arguments: TokenStream, item: TokenStream, above: impl FnOnce(&Function) -> Above) -> TokenStream {
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(unread) => return expand_other(&arguments, &item, &unread),
    };
    let above = above(&function);
    if program::is_main(&function, &above) {
        return program::isolated_main(&arguments, &function);
    }
    expand_function(arguments, function, above, makes_tests)
}

/// What becomes of an item that is `unread` as a function: a module, or an error.
fn expand_other(arguments: &TokenStream, item: &TokenStream, unread: &Error) -> TokenStream {
    let (args, mut error) = Args::parse(arguments.clone());
    if let Ok(module) = syn::parse2(item.clone()) {
        return module::isolated_module(arguments, &args, error, module);
    }
    let (_, items) = items(item.clone());
    let is_function = item.clone().into_iter().any(|token| matches!(token, TokenTree::Ident(word) if word == "fn"));
    let new = match items.as_slice() {
        [_, _, ..] => {
            let hint = "stable Rust has no attributes of whole files: write `#[isolated] mod tests { .. }` around the tests of this file";
            return Error::new(Span::call_site(), hint).into_compile_error();
        }
        [Item { kind: Kind::ModuleElsewhere, .. }] => {
            let hint = "the tests of this module are in another file, where `#[isolated]` can't see them: write `#[isolated] mod tests { .. }` \
                        in that file, around them";
            Error::new_spanned(item, hint)
        }
        _ if is_function => Error::new(unread.span(), format!("`#[isolated]` can't read this function: {unread}")),
        _ => {
            let hint = "`#[isolated]` goes on a test function, `#[isolated] fn name() { .. }`, or on a module of tests, \
                        `#[isolated] mod tests { .. }`";
            Error::new_spanned(item, hint)
        }
    };
    match &mut error {
        Some(error) => error.combine(new),
        none => *none = Some(new),
    }
    let errors = error.map(Error::into_compile_error);
    quote!(#errors #item)
}

/// Turns a function into an isolated test. `makes_tests`: whether an attribute below ours makes tests of it.
fn expand_function(
    arguments: TokenStream,
    mut function: Function,
    above: Above,
    makes_tests: fn(&Attribute) -> bool,
) -> TokenStream {
    let (args, mut error) = Args::parse(arguments.clone());
    let mut add = |new: Error| match &mut error {
        Some(error) => error.combine(new),
        none => *none = Some(new),
    };
    // An attribute below ours that makes tests makes the functions that we are to isolate: let it go first.
    let is_made_below = function.attrs.iter().any(makes_tests);
    if !is_made_below {
        unfit(&function).into_iter().for_each(&mut add);
    }
    if let Some(twin) = function.attrs.iter().find(|attribute| last_name(attribute.path()) == "isolated") {
        add(Error::new_spanned(twin, "`#[isolated]` is there twice: remove one"));
    }
    let outside = outside(&function).into_iter().filter(|(attribute, _)| !is_made_below || !makes_tests(attribute));
    outside.for_each(|(_, error)| add(error));
    if above.lacks_some_cases && is_case_of_ntest(&function) {
        let hint = "ntest gives what stands below a case to that one alone, and the others would run on the host: write `#[isolated]` \
                    below each `#[test_case]`";
        add(Error::new(Span::call_site(), hint));
    }
    if above.is_for_one_case {
        let hint = "before one of several cases, `#[isolated]` is for that case alone, and the others would run on the host: \
                    write it below the last `#[case]`, or above `#[rstest]`";
        add(Error::new(Span::call_site(), hint));
    }
    if let Some(hint) = lock_inside(&function, &above) {
        add(Error::new(Span::call_site(), hint));
    }
    if let Some(error) = error {
        let errors = error.into_compile_error();
        return quote!(#errors #function);
    }
    // Locks are to be taken outside of the sandbox. Above ours, they are taken inside, where they lock nobody out. So they are repeated here.
    let locks = above.locks.iter().map(|lock| syn::parse_quote!(#[#lock]));
    function.attrs.splice(0..0, locks);
    if is_made_below {
        return below_the_makers(&args.krate, &arguments, function, makes_tests);
    }
    let test_attribute = test_attribute(&function, &above);
    isolated_test(&args, &arguments, &function, test_attribute)
}

/// What keeps `function` from being a test.
fn unfit(function: &Function) -> Vec<Error> {
    let signature = &function.sig;
    let mut errors = Vec::new();
    if let Some(asyncness) = &signature.asyncness {
        let hint = "an async test needs a runtime: write `#[tokio::test]` below `#[isolated]`";
        errors.push(Error::new(asyncness.span(), hint));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let hint = "a test is no method: write `fn` without `self`, outside of the `impl`";
        errors.push(Error::new_spanned(receiver, hint));
    } else if !signature.inputs.is_empty() {
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

/// Attributes that must not stand below ours: there they work outside of the sandbox, or make no test.
fn outside(function: &Function) -> Vec<(&Attribute, Error)> {
    let hint = |attribute: &Attribute| match last_name(attribute.path()).as_str() {
        "traced_test" => Some("below `#[isolated]`, this would look for logs outside of the sandbox: write it above"),
        "template" => Some("a template is no test: write `#[isolated]` on each function that applies it"),
        _ => None,
    };
    let error = |attribute| hint(attribute).map(|hint| (attribute, Error::new_spanned(attribute, hint)));
    function.attrs.iter().filter_map(error).collect()
}

/// Whether ntest has made this function, of a case: it begins with the parameters, as variables that have a type. test-case has such
/// functions call the one with the parameters.
fn is_case_of_ntest(function: &Function) -> bool {
    let mut tokens = function.body.stream().into_iter();
    let begins = matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "let");
    begins && matches!(tokens.nth(1), Some(TokenTree::Punct(colon)) if colon.as_char() == ':')
}

/// Why a lock that an attribute above takes would keep nobody out, if it would not.
fn lock_inside(function: &Function, above: &Above) -> Option<&'static str> {
    let is_taken_outside = !above.locks.is_empty() || function.attrs.iter().any(locks);
    let is_taken_inside = |prefix| calls(function.body.stream(), prefix);
    let takes_file = above.has_file_lock || is_taken_inside("fs_");
    (takes_file || (!is_taken_outside && is_taken_inside("local_"))).then_some(
        "what locks above `#[isolated]` does so inside the sandbox, where it is alone: write it below `#[isolated]`",
    )
}

/// Whether `tokens` call one of the functions of serial_test whose names begin with `prefix`.
fn calls(tokens: TokenStream, prefix: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(name) => {
            let name = name.to_string();
            name.starts_with(prefix) && (name.contains("serial_core") || name.contains("parallel_core"))
        }
        TokenTree::Group(group) => calls(group.stream(), prefix),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// Whether this attribute makes tests of the function that it is given, and may give it another shape. `#[test]` by a path into the
/// standard library does not: so it is written by macros that have done that.
fn makes_tests(attribute: &Attribute) -> bool {
    let [first, last] = names(attribute.path());
    is_maker(&first, &last) && !is_standard_test(attribute)
}

/// Whether this is `#[test]`, by a path into the standard library.
fn is_standard_test(attribute: &Attribute) -> bool {
    let [first, last] = names(attribute.path());
    (first == "core" || first == "std") && last == "test"
}

/// Whether this attribute keeps tests apart.
fn locks(attribute: &Attribute) -> bool {
    let [first, last] = names(attribute.path());
    is_lock(&last) || is_file_lock(&first, &last)
}

/// The first and the last name of a path.
fn names(path: &Path) -> [String; 2] {
    [path.segments.first(), path.segments.last()]
        .map(|segment| segment.map_or(String::new(), |segment| segment.ident.unraw().to_string()))
}

fn last_name(path: &Path) -> String {
    let [_, last] = names(path);
    last
}

/// The attribute that makes the function a test, as far as none has done that.
fn test_attribute(function: &Function, above: &Above) -> Option<TokenStream> {
    if function.attrs.iter().any(is_standard_test) {
        return None;
    }
    let conditions: Option<Vec<_>> = above.makers.iter().cloned().collect();
    match conditions?.as_slice() {
        [] => Some(quote!(#[::core::prelude::v1::test])),
        [condition] => Some(quote!(#[cfg_attr(not(#condition), ::core::prelude::v1::test)])),
        several => Some(quote!(#[cfg_attr(not(any(#(#several),*)), ::core::prelude::v1::test)])),
    }
}

/// The same function, with what makes tests of it first, then what isolates them, and then all else, which so stays outside of the
/// sandbox. Where rstest has cases, what stands before one of them is for that one alone: so ours goes behind the last, and only
/// locks change places.
fn below_the_makers(
    krate: &Path,
    args: &TokenStream,
    mut function: Function,
    makes_tests: fn(&Attribute) -> bool,
) -> TokenStream {
    let ours: Attribute = syn::parse_quote!(#[#krate::__private::isolated_case(#args)]);
    let has_sandboxes = has_sandboxes();
    if !function.attrs.iter().any(|attribute| attribute.path().is_ident("ignore")) {
        // What makes the test looks for this before ours can add it.
        function.attrs.push(syn::parse_quote!(#[cfg_attr(not(#has_sandboxes), ignore = #ELSEWHERE)]));
    }
    let is_case = |attribute: &Attribute| attribute.path().segments.first().is_some_and(|first| first.ident == "case");
    let last_case = function.attrs.iter().rposition(is_case);
    let mut index = 0;
    let (first, others): (Vec<_>, Vec<_>) = function.attrs.drain(..).partition(|attribute| {
        index += 1;
        makes_tests(attribute) || last_case.is_some_and(|last| index <= last + 1 && !locks(attribute))
    });
    function.attrs.extend(first.into_iter().chain([ours]).chain(others));
    // Should ours get lost on the way, the body must not run.
    let name = function.sig.ident.to_string();
    function.begin_with(&quote! {
        #[cfg(#has_sandboxes)]
        #krate::__private::must_be_inside(#name);
    });
    let check = must_not_be_documentation(krate, function.sig.ident.span());
    quote!(#function #check)
}

/// The test itself.
fn isolated_test(
    args: &Args,
    arguments: &TokenStream,
    function: &Function,
    test_attribute: Option<TokenStream>,
) -> TokenStream {
    let Function { attrs, vis, sig, body } = function;
    let name = &sig.ident;
    let run = run(args, arguments, function);
    let has_sandboxes = has_sandboxes();
    let elsewhere = elsewhere(function, test_attribute.as_ref());
    let check = must_not_be_documentation(&args.krate, name.span());
    // The span of this function goes from the attribute to the end of the body: so Clippy sees that the body is a test's. Its braces stay
    // at the attribute: at the body, that would count twice for coverage.
    let mut beginning: Vec<TokenTree> = quote!(#vis fn).into_iter().collect();
    beginning.iter_mut().take(1).for_each(|token| token.set_span(Span::mixed_site().located_at(body.span())));
    let mut inside = Group::new(
        Delimiter::Brace,
        quote! {
            // Or Clippy would take this for one more test, outside of all modules for tests.
            #[cfg(test)]
            #sig #body
            #run;
        },
    );
    inside.set_span(Span::mixed_site());
    quote! {
        #[cfg(#has_sandboxes)]
        #(#attrs)*
        #test_attribute
        #(#beginning)* #name() #inside
        #check
        #elsewhere
    }
}

/// Whether what is compiled has a harness that calls its tests.
fn has_harness() -> bool {
    env::args_os().any(|argument| argument == "--test")
}

/// What fails to compile in a documentation test. Without a harness, the compiler drops tests: there, that would be a pass.
fn must_not_be_documentation(krate: &Path, place: Span) -> Option<TokenStream> {
    if cfg!(test) || has_harness() {
        return None;
    }
    let (span, has_sandboxes) = (Span::mixed_site().located_at(place), has_sandboxes());
    Some(quote_spanned! {span=>
        #[cfg(#has_sandboxes)]
        const _: () = #krate::__private::must_not_be_documentation(::core::module_path!());
    })
}

/// The call that runs the test.
fn run(args: &Args, arguments: &TokenStream, function: &Function) -> TokenStream {
    let (krate, test) = (&args.krate, constant(args, arguments, function, false));
    let span = Span::mixed_site().located_at(function.sig.ident.span());
    quote_spanned!(span=> #krate::__private::run(const { &#test }))
}

/// The constant that tells the runtime of a test, or of a preparation.
fn constant(args: &Args, arguments: &TokenStream, function: &Function, is_preparation: bool) -> TokenStream {
    let Function { attrs, sig, .. } = function;
    let (krate, name) = (&args.krate, &sig.ident);
    // An error in the type of what the body returns points there.
    let place = match &sig.output {
        ReturnType::Type(_, returned) => returned.span(),
        ReturnType::Default => name.span(),
    };
    let mut function_name = name.clone();
    function_name.set_span(name.span().located_at(place));
    // A function of another ABI is no `fn() -> T`.
    let call = match sig.abi {
        Some(_) => quote_spanned!(Span::mixed_site().located_at(place)=> || #function_name()),
        None => quote!(#function_name),
    };
    let (path, written) = (function.name(), arguments.to_string());
    let differences = asked::differences(args, should_panic(attrs).as_ref());
    let spec = asked::spec(args, is_preparation);
    // Errors in what we write point at the function's name, not at the whole attribute.
    let span = Span::mixed_site().located_at(name.span());
    quote_spanned! {span=>
        #krate::__private::Test {
            name: #path,
            arguments: #written,
            spec: #spec,
            #differences
            body: || #krate::__private::status(#call),
            ..#krate::__private::Test::PLAIN
        }
    }
}

/// What stands for the test where there are no sandboxes: one that is ignored, and does not pass if it is run nevertheless. The body
/// may not even compile there.
fn elsewhere(Function { attrs, vis, sig, .. }: &Function, test_attribute: Option<&TokenStream>) -> TokenStream {
    let name = &sig.ident;
    let has_sandboxes = has_sandboxes();
    let has = |name: &str| attrs.iter().any(|attribute| attribute.path().is_ident(name));
    let ignore = (!has("ignore")).then(|| quote!(#[ignore = #ELSEWHERE]));
    let fail = if has("should_panic") { quote!(::std::eprintln!) } else { quote!(::core::panic!) };
    quote! {
        #[cfg(not(#has_sandboxes))]
        #(#attrs)*
        #test_attribute
        #ignore
        #vis fn #name() {
            #fail(#ELSEWHERE)
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
