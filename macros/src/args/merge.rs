//! Puts the arguments of a module and those of a test in it together.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::parse::{Parse as _, Parser as _};
use syn::{Expr, ExprArray, ExprLit, Ident, Lit, LitStr, Token};

use super::values::{bind, variable, without_groups};
use super::{WORDS, split_at_commas};

/// One argument, unread but for its name.
struct Written {
    name: String,
    tokens: TokenStream,
    /// What stands behind `=`, if that is there.
    value: Option<TokenStream>,
}

impl Written {
    fn is_word(&self) -> bool {
        self.value.is_none() && WORDS.contains(&self.name.as_str())
    }
}

/// The arguments of a test with an attribute of its own, in a module that has some. Words are added: a module without any has all that
/// `#[isolated]` has, and so has a test that has none of its own. Of options, the test's own hold; in lists, this is so for each path and
/// each variable. What is wrong in them stays so.
pub(crate) fn merge(of_module: TokenStream, own: TokenStream) -> TokenStream {
    let module = written(of_module);
    let own = written(if own.is_empty() && module.iter().any(Written::is_word) { quote!(net, mount) } else { own });
    let starts_from = module.iter().chain(&own).any(|argument| argument.name == "from" && argument.value.is_some());
    let has_words = |arguments: &[Written]| arguments.iter().any(Written::is_word);
    let mut merged: Vec<TokenStream> = Vec::new();
    if !has_words(&module) && has_words(&own) {
        merged.push(quote!(net));
        if !starts_from {
            merged.push(quote!(mount));
        }
    }
    let is_implied = |argument: &Written| starts_from && argument.is_word() && argument.name == "mount";
    let same = |one: &Written, other: &Written| one.name == other.name && one.value.is_some() == other.value.is_some();
    let is_overridden = |argument: &Written| !argument.is_word() && own.iter().any(|other| same(argument, other));
    let kept = module.iter().filter(|argument| !is_implied(argument) && !is_overridden(argument));
    merged.extend(kept.map(|argument| argument.tokens.clone()));
    let is_there = |argument: &Written| {
        let implicit = !has_words(&module) && ["net", "mount"].contains(&argument.name.as_str());
        argument.is_word() && (implicit || module.iter().any(|other| same(argument, other)))
    };
    for argument in own.iter().filter(|argument| !is_there(argument) && !is_implied(argument)) {
        let of_module = module.iter().find(|other| same(argument, other));
        let list = match (of_module, argument.name.as_str()) {
            (Some(other), "bind") => both(other, argument, |text| bind(text).map(|bind| bind.to)),
            (Some(other), "env") => both(other, argument, |text| variable(text).map(|(name, _)| name)),
            _ => None,
        };
        merged.push(list.unwrap_or_else(|| argument.tokens.clone()));
    }
    quote!(#(#merged),*)
}

/// The attribute of a test that is to have the words of its module, and no more.
pub(crate) fn with_words(of_module: &TokenStream) -> String {
    let words = written(of_module.clone()).into_iter().filter(Written::is_word).map(|word| word.name);
    let words: Vec<_> = words.collect();
    if words.is_empty() { "#[isolated]".to_owned() } else { format!("#[isolated({})]", words.join(", ")) }
}

fn written(arguments: TokenStream) -> Vec<Written> {
    let read = |tokens: TokenStream| {
        let mut rest = tokens.clone().into_iter();
        let name = match rest.next() {
            Some(TokenTree::Ident(name)) => name.to_string(),
            _ => String::new(),
        };
        let is_key = matches!(rest.next(), Some(TokenTree::Punct(equals)) if equals.as_char() == '=');
        Written { name, tokens, value: is_key.then(|| rest.collect()) }
    };
    split_at_commas(arguments).into_iter().map(|argument| read(argument.tokens)).collect()
}

/// A list of the module's, with the test's own: of two that are about the same thing, the test's. `None` if one of them is no such list.
fn both(of_module: &Written, own: &Written, about: impl Fn(&LitStr) -> syn::Result<String>) -> Option<TokenStream> {
    let elements = |list: &Written| -> Option<Vec<(Option<String>, Expr)>> {
        let list = ExprArray::parse.parse2(list.value.clone()?).ok()?;
        let about = |element: Expr| match without_groups(&element) {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => (about(text).ok(), element),
            _ => (None, element),
        };
        Some(list.elems.into_iter().map(about).collect())
    };
    let (mut all, own_elements) = (elements(of_module)?, elements(own)?);
    all.retain(|(about, _)| about.is_none() || own_elements.iter().all(|(own, _)| own != about));
    let all = all.into_iter().chain(own_elements).map(|(_, element)| element);
    let name = |input: syn::parse::ParseStream<'_>| {
        let name: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        input.parse::<TokenStream>()?;
        Ok(name)
    };
    let name = name.parse2(own.tokens.clone()).ok()?;
    Some(quote!(#name = [#(#all),*]))
}
