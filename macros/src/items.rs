//! Cuts the content of a module into items, which are left unread: the compiler may know more syntax than we do.
//!
//! An item ends with its braces, or with a semicolon. Braces between `<` and `>` are a constant in a type, and end nothing.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::ext::IdentExt as _;

/// What kind of item it is, as far as tests may be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    /// A module with its content.
    Module,
    /// A module whose content is in another file.
    ModuleElsewhere,
    /// The call of a macro: the last name of its path.
    Macro(String),
    /// What holds no test.
    Other,
}

/// An item of a module.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    /// What stands between `#[` and `]`, of each attribute above it.
    pub(crate) attributes: Vec<TokenStream>,
    /// All of it, attributes and semicolon included.
    pub(crate) tokens: Vec<TokenTree>,
}

/// Cuts the content of a module: its own attributes, `#![..]`, and its items.
pub(crate) fn items(content: TokenStream) -> (Vec<TokenTree>, Vec<Item>) {
    let mut rest: Vec<TokenTree> = content.into_iter().collect();
    let mut own = Vec::new();
    while is_inner_attribute(&rest) {
        own.extend(rest.drain(..3));
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, attributes) = attributes(&mut rest);
        let kind = kind(&mut rest, length);
        let end = end(&rest, length, &kind);
        items.push(Item { kind, attributes, tokens: rest.drain(..end).collect() });
    }
    (own, items)
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(word)) => Some(word.to_string()),
        _ => None,
    }
}

fn is_inner_attribute(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), '#') && is_punct(tokens.get(1), '!') && group(tokens.get(2), Delimiter::Bracket).is_some()
}

/// Takes away the groups without delimiters at `at`, into which `macro_rules` puts what it was given.
fn open_groups(tokens: &mut Vec<TokenTree>, at: usize) {
    while let Some(group) = group(tokens.get(at), Delimiter::None).cloned() {
        tokens.splice(at..=at, group.stream());
    }
}

/// The attributes that `tokens` begin with, and how many tokens they are.
fn attributes(tokens: &mut Vec<TokenTree>) -> (usize, Vec<TokenStream>) {
    let (mut at, mut attributes) = (0, Vec::new());
    loop {
        open_groups(tokens, at);
        match group(tokens.get(at + 1), Delimiter::Bracket).filter(|_| is_punct(tokens.get(at), '#')) {
            Some(group) => attributes.push(group.stream()),
            None => return (at, attributes),
        }
        at += 2;
    }
}

/// The kind of the item that begins at `at`.
fn kind(tokens: &mut Vec<TokenTree>, mut at: usize) -> Kind {
    if let Some(name) = macro_name(tokens, at) {
        return Kind::Macro(name);
    }
    loop {
        open_groups(tokens, at);
        let Some(word) = word(tokens.get(at)) else {
            // Of `pub(crate)`, or the name of an ABI.
            let is_qualifier = group(tokens.get(at), Delimiter::Parenthesis).is_some()
                || matches!(tokens.get(at), Some(TokenTree::Literal(_)));
            match is_qualifier {
                true => at += 1,
                false => return Kind::Other,
            }
            continue;
        };
        match word.as_str() {
            "fn" => return Kind::Function,
            "mod" if is_punct(tokens.get(at + 2), ';') => return Kind::ModuleElsewhere,
            "mod" => return Kind::Module,
            "async" | "const" | "default" | "extern" | "gen" | "pub" | "safe" | "unsafe" => at += 1,
            _ => return Kind::Other,
        }
    }
}

/// The last name of the path of the macro that is called at `at`, if one is.
fn macro_name(tokens: &[TokenTree], mut at: usize) -> Option<String> {
    let mut name = None;
    loop {
        match tokens.get(at)? {
            TokenTree::Ident(ident) => name = Some(ident.unraw().to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '!' => return name,
            TokenTree::Punct(punct) if punct.as_char() == ':' || punct.as_char() == '$' => {}
            // A path that `macro_rules` was given.
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                name = group.stream().into_iter().last().map(|last| last.to_string());
            }
            _ => return None,
        }
        // Two names follow each other in no path.
        if word(tokens.get(at)).is_some() && word(tokens.get(at + 1)).is_some() {
            return None;
        }
        at += 1;
    }
}

/// Where the item ends whose attributes end at `at`.
fn end(tokens: &[TokenTree], at: usize, kind: &Kind) -> usize {
    let ends_with_semicolon = match kind {
        Kind::Other => has_value(&tokens[at..]),
        _ => false,
    };
    let mut depth = 0_usize;
    for index in at..tokens.len() {
        match &tokens[index] {
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => return index + 1,
                '<' => depth += 1,
                // The one of `->` closes nothing.
                '>' if !is_punct(index.checked_sub(1).and_then(|before| tokens.get(before)), '-') => {
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            },
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && depth == 0 && !ends_with_semicolon => {
                return index + 1;
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Whether an item is one of those that end with a semicolon, whatever braces they have: constants, statics, types, and what is imported.
fn has_value(tokens: &[TokenTree]) -> bool {
    let mut words = tokens.iter().enumerate().filter_map(|(at, token)| word(Some(token)).map(|word| (at, word)));
    words.find(|(_, word)| !["pub", "unsafe", "default", "safe"].contains(&word.as_str())).is_some_and(|(at, word)| {
        match word.as_str() {
            "const" | "static" | "type" | "use" => true,
            "extern" => self::word(tokens.get(at + 1)).is_some_and(|next| next == "crate"),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn cut(content: TokenStream) -> Vec<(Kind, usize, String)> {
        let (_, items) = items(content);
        let texts = items.into_iter().map(|Item { kind, attributes, tokens }| {
            (kind, attributes.len(), tokens.into_iter().collect::<TokenStream>().to_string())
        });
        texts.collect()
    }

    #[test]
    fn each_item_ends_where_it_ends() {
        use Kind::{Function, Macro, Module, ModuleElsewhere, Other};

        let expected = [
            (
                Other,
                0,
                quote!(
                    use super::{a, b};
                ),
            ),
            (
                Function,
                2,
                quote!(
                    #[test]
                    #[cfg(a)]
                    fn a() {}
                ),
            ),
            (
                Function,
                0,
                quote!(
                    pub(crate) const unsafe extern "C" fn b<const N: usize>(a: A<{ 1 }>) -> [u8; { 2 }] {
                        3
                    }
                ),
            ),
            (
                Function,
                1,
                quote!(
                    #[test]
                    async fn c() -> A<{ 1 }, fn() -> B>
                    where
                        A: Fn() -> C,
                    {
                    }
                ),
            ),
            (
                Other,
                1,
                quote!(
                    #[derive(Debug)]
                    struct A<const N: usize = { 1 }> {
                        a: B,
                    }
                ),
            ),
            (
                Other,
                0,
                quote!(
                    struct B(A);
                ),
            ),
            (Other, 0, quote!(union D { a: u8 })),
            (
                Other,
                0,
                quote!(
                    impl<T: Fn() -> A> B<{ 1 }> for C<T> {
                        fn d() {}
                    }
                ),
            ),
            (
                Other,
                0,
                quote!(
                    pub const A: B = B { a: 1 };
                ),
            ),
            (
                Other,
                0,
                quote!(
                    const _: () = {};
                ),
            ),
            (
                Other,
                0,
                quote!(
                    static mut A: fn() -> u8 = || 1;
                ),
            ),
            (
                Other,
                0,
                quote!(
                    extern crate std;
                ),
            ),
            (
                Other,
                0,
                quote!(
                    unsafe extern "C" {
                        fn e();
                    }
                ),
            ),
            (
                Other,
                0,
                quote!(
                    type A = B<{ 1 }>;
                ),
            ),
            (Macro("proptest".to_owned()), 0, quote!(proptest::proptest! { fn a() {} })),
            (Macro("a".to_owned()), 1, quote!(#[b] a!(c);)),
            (
                Macro("macro_rules".to_owned()),
                0,
                quote!(
                    macro_rules! a {
                        () => {};
                    }
                ),
            ),
            (
                Macro("macro_rules".to_owned()),
                0,
                quote!(
                    macro_rules! a(() => {});
                ),
            ),
            (
                Module,
                0,
                quote!(
                    mod a {
                        fn b() {}
                    }
                ),
            ),
            (
                ModuleElsewhere,
                0,
                quote!(
                    pub mod a;
                ),
            ),
            (
                Function,
                0,
                quote!(
                    fn last() {}
                ),
            ),
        ];
        let content = expected.iter().map(|(.., tokens)| tokens.clone()).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(kind, attributes, tokens)| (kind, attributes, tokens.to_string())).collect();
        assert_eq!(cut(content), expected);
    }

    #[test]
    fn what_macro_rules_was_given_is_seen() {
        let group = |tokens| TokenTree::Group(Group::new(Delimiter::None, tokens));
        let (item, visibility) = (
            group(quote!(
                #[test]
                fn a() {}
            )),
            group(quote!(pub)),
        );
        let found = cut(quote!(#item #visibility fn b() {}));
        let kinds: Vec<_> = found.iter().map(|(kind, attributes, _)| (kind.clone(), *attributes)).collect();
        assert_eq!(kinds, [(Kind::Function, 1), (Kind::Function, 0)]);
    }

    #[test]
    fn what_is_for_the_module_itself_is_no_item() {
        let (own, items) = items(quote!(#![allow(a)] #![deny(b)] fn c() {}));
        assert_eq!((own.len(), items.len()), (6, 1));
        assert_eq!((items_of(quote!()), items_of(quote!(#![allow(a)]))), (0, 0));
    }

    fn items_of(content: TokenStream) -> usize {
        items(content).1.len()
    }
}
