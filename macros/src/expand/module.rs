//! Writes what `#[isolated]` on a module stands for: the same module, in which each function that may be a test has an attribute of ours.
//!
//! ```text
//! #[isolated(net)]            mod tests {
//! mod tests {                     use super::*;
//!     use super::*;       →       #[isolated_in_module(net)]
//!     #[test]                     #[test]
//!     fn a() {}                   fn a() {}
//! }                           }
//! ```
//!
//! That attribute sees the function's others as the compiler leaves them: without `cfg_attr`. It makes an isolated test of the function, or adds
//! the module's arguments to those that the function has, or leaves it alone. Deeper modules have it too. What may be a test and can't be
//! seen is an error.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Ident, Meta, MetaList, Path, Token, Visibility};

use super::{
    Above, Function, expand_function, is_standard_test, last_name, makes_tests, must_not_be_documentation, names,
};
use crate::above::is_maker;
use crate::args::{Args, merge, with_words};
use crate::function::in_braces;
use crate::items::{Item, Kind, items};

/// Attributes that make no test, by the last names of their paths: those of the compiler, and others that are often in modules for tests.
const HARMLESS: [&str; 46] = [
    "allow",
    "automatically_derived",
    "awt",
    "cfg",
    "cold",
    "coverage",
    "default",
    "deny",
    "deprecated",
    "doc",
    "expect",
    "export_name",
    "file_parallel",
    "file_serial",
    "fixture",
    "forbid",
    "future",
    "ignore",
    "inline",
    "instrument",
    "link_section",
    "macro_export",
    "macro_use",
    "main",
    "must_use",
    "no_mangle",
    "non_exhaustive",
    "notrace",
    "once",
    "optimize",
    "parallel",
    "partial_1",
    "path",
    "prepared",
    "serial",
    "should_panic",
    "skip",
    "target_feature",
    "template",
    "timeout",
    "trace",
    "traced_test",
    "track_caller",
    "unsafe",
    "values",
    "warn",
];

/// The tools whose attributes the compiler passes over.
const TOOLS: [&str; 5] = ["clippy", "diagnostic", "miri", "rustdoc", "rustfmt"];

/// Macros in whose calls there are no tests.
const HARMLESS_MACROS: [&str; 9] = [
    "assert_impl_all",
    "assert_not_impl_any",
    "bitflags",
    "compile_error",
    "const_assert",
    "const_assert_eq",
    "lazy_static",
    "macro_rules",
    "thread_local",
];

/// A module, with its content unread.
pub(super) struct Module {
    attrs: Vec<Attribute>,
    vis: Visibility,
    keyword: Token![mod],
    name: Ident,
    content: Group,
}

impl Parse for Module {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            attrs: input.call(Attribute::parse_outer)?,
            vis: input.parse()?,
            keyword: input.parse()?,
            name: input.parse()?,
            content: input.call(in_braces)?,
        })
    }
}

/// Isolates the tests in a module. `error`: what was wrong with the arguments.
pub(super) fn isolated_module(
    arguments: &TokenStream,
    args: &Args,
    error: Option<Error>,
    mut module: Module,
) -> TokenStream {
    let mut errors = Vec::from_iter(error);
    let mut merged = arguments.clone();
    if let Some(own) = module.attrs.iter().position(is_ours) {
        merged = merge(merged, arguments_of(&module.attrs.remove(own)));
        let (args, error) = Args::parse(merged.clone());
        errors.extend(error);
        return content(&merged, &args.krate, module, errors);
    }
    content(&merged, &args.krate, module, errors)
}

fn content(arguments: &TokenStream, krate: &Path, module: Module, mut errors: Vec<Error>) -> TokenStream {
    for attribute in module.attrs.iter().filter(|attribute| !is_harmless(&attribute.meta)) {
        let name = path_of(attribute.path());
        let text = format!(
            "`#[{name}]` may make tests in this module, which `#[isolated]` can't see: remove it, or write `#[isolated]` on each test instead"
        );
        errors.push(Error::new_spanned(attribute, text));
    }
    let mut inside = TokenStream::new();
    if errors.is_empty() {
        inside = rewritten(arguments, krate, module.content.stream(), &mut errors);
        inside.extend(must_not_be_documentation(krate, module.name.span()));
    }
    // What would run on the host is not even there.
    let Module { attrs, vis, keyword, name, content } = module;
    let mut content = Group::new(content.delimiter(), if errors.is_empty() { inside } else { content.stream() });
    content.set_span(name.span());
    let errors = errors.into_iter().map(Error::into_compile_error);
    quote!(#(#errors)* #(#attrs)* #vis #keyword #name #content)
}

/// The content of a module, or of a macro that is given items. What can't be seen is added to `errors`.
fn rewritten(arguments: &TokenStream, krate: &Path, content: TokenStream, errors: &mut Vec<Error>) -> TokenStream {
    let (own, items) = items(content);
    let mut tokens: TokenStream = own.into_iter().collect();
    for Item { kind, attributes, tokens: mut item } in items {
        let may_be_test = |attribute: TokenStream| !syn::parse2::<Meta>(attribute).is_ok_and(|meta| is_harmless(&meta));
        match kind {
            Kind::Module => tokens.extend(ours(arguments, krate, &item)),
            Kind::Function if attributes.into_iter().any(may_be_test) => tokens.extend(ours(arguments, krate, &item)),
            Kind::Macro(name) if name == "proptest" => {
                if let Some(TokenTree::Group(group)) =
                    item.iter_mut().rfind(|token| matches!(token, TokenTree::Group(_)))
                {
                    let mut inside = Group::new(group.delimiter(), rewritten(arguments, krate, group.stream(), errors));
                    inside.set_span(group.span());
                    *group = inside;
                }
            }
            Kind::Macro(name) if !HARMLESS_MACROS.contains(&name.as_str()) => {
                let text = format!(
                    "`{name}!` may make tests, which `#[isolated]` can't see: move it out of this module, and write `#[isolated]` on each \
                     test in it"
                );
                errors.push(at(&item, &text));
            }
            Kind::ModuleElsewhere => {
                let text = "the tests of this module are in another file, where `#[isolated]` can't see them: move this line out of the \
                            module, and write `#[isolated] mod tests { .. }` in that file";
                errors.push(at(&item, text));
            }
            Kind::Function | Kind::Macro(_) | Kind::Other => {}
        }
        tokens.extend(item);
    }
    tokens
}

/// The attribute that stands for ours in a module, above `item`.
fn ours(arguments: &TokenStream, krate: &Path, item: &[TokenTree]) -> TokenStream {
    let place = item.first().map_or_else(Span::call_site, TokenTree::span);
    let span = Span::call_site().located_at(place);
    quote_spanned!(span=> #[#krate::__private::isolated_in_module(#arguments)])
}

/// An error that points at all of an item.
fn at(item: &[TokenTree], text: &str) -> Error {
    Error::new_spanned(item.iter().cloned().collect::<TokenStream>(), text)
}

/// What the attribute makes of a function in a module, or of a deeper module.
pub(crate) fn isolated_in_module(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let (args, error) = Args::parse(arguments.clone());
    let mut function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(unread) => {
            return match syn::parse2::<Module>(item.clone()) {
                Ok(module) => isolated_module(&arguments, &args, error, module),
                Err(_) => {
                    let error = Error::new(unread.span(), format!("`#[isolated]` can't read this function: {unread}"));
                    let error = error.into_compile_error();
                    quote!(#error #item)
                }
            };
        }
    };
    if let Some(own) = function.attrs.iter_mut().find(|attribute| is_ours(attribute)) {
        add_to(own, arguments);
        return quote!(#function);
    }
    let has = |name: &str| function.attrs.iter().any(|attribute| last_name(attribute.path()) == name);
    let is_test = function.attrs.iter().any(|attribute| makes_in_module(attribute) || is_standard_test(attribute));
    // A template of rstest_reuse is no test by itself.
    if has("prepared") && !is_test || has("template") && (!is_test || has("rstest")) {
        return item;
    }
    if is_test {
        return expand_function(arguments, function, Above::default(), makes_in_module);
    }
    let unknown = function.attrs.iter().find(|attribute| !is_harmless(&attribute.meta));
    let error = unknown.map(|attribute| {
        let name = path_of(attribute.path());
        let ours = with_words(&arguments);
        let text = format!(
            "`#[{name}]` may make a test of this function, which `#[isolated]` can't see: if it does, write `{ours}` on the function \
             too; if not, move the function out of this module"
        );
        Error::new_spanned(attribute, text).into_compile_error()
    });
    quote!(#error #function)
}

/// Whether this makes tests of the function below it, which are to be isolated below it: more is known here than where a function has our
/// attribute itself.
fn makes_in_module(attribute: &Attribute) -> bool {
    makes_tests(attribute) || ["apply", "traced_test"].contains(&last_name(attribute.path()).as_str())
}

fn is_ours(attribute: &Attribute) -> bool {
    last_name(attribute.path()) == "isolated"
}

/// What stands in the parentheses of an attribute.
fn arguments_of(attribute: &Attribute) -> TokenStream {
    match &attribute.meta {
        Meta::List(list) => list.tokens.clone(),
        _ => TokenStream::new(),
    }
}

/// Adds the module's arguments to those of a test's own attribute, which stays where it is.
fn add_to(own: &mut Attribute, arguments: TokenStream) {
    let (path, merged) = (own.path().clone(), merge(arguments, arguments_of(own)));
    let delimiter = match &own.meta {
        Meta::List(list) => list.delimiter.clone(),
        _ => syn::MacroDelimiter::Paren(syn::token::Paren(last_span(&path))),
    };
    let [hash, name] = [own.pound_token.span, path.span()].map(|span| span.start());
    if (hash.line, hash.column + "#[".len()) != (name.line, name.column) {
        // It has stood in a `cfg_attr`, whose `#` this is. What is above ours is looked for from here.
        own.pound_token.span = path.span();
    }
    own.meta = Meta::List(MetaList { path, delimiter, tokens: merged });
}

fn last_span(path: &Path) -> Span {
    path.segments.last().map_or_else(Span::call_site, |segment| segment.ident.span())
}

/// Whether an attribute makes no test, as far as its name tells. One of another crate may have a name that is harmless elsewhere.
fn is_harmless(meta: &Meta) -> bool {
    let [first, last] = names(meta.path());
    if is_maker(&first, &last) {
        return false;
    }
    if let ("fixture", Meta::List(list)) = (last.as_str(), meta) {
        // rstest's has no pattern of files, for each of which there is a test.
        return syn::parse2::<syn::LitStr>(list.tokens.clone()).is_err();
    }
    if let ("cfg_attr", Meta::List(list)) = (last.as_str(), meta) {
        let read = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list.tokens.clone());
        return read.is_ok_and(|arguments| arguments.iter().skip(1).all(is_harmless));
    }
    HARMLESS.contains(&last.as_str()) || TOOLS.contains(&first.as_str())
}

/// A path as it is written.
fn path_of(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}
