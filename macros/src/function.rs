//! A test function, with its body unread.
//!
//! The compiler reads the body before us and after us, and says what is wrong with it. It may know more syntax than we do. So only
//! what stands before the body is parsed here.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens, TokenStreamExt as _, quote};
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::{Attribute, Block, Error, Signature, Visibility};

/// A function with a body.
pub(crate) struct Function {
    /// Those that stand above it.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// In its braces, which stay the user's: of a body that begins in a macro, the compiler counts nothing for coverage.
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            attrs: input.call(Attribute::parse_outer)?,
            vis: input.parse()?,
            sig: input.parse()?,
            body: input.call(in_braces)?,
        })
    }
}

/// The tokens that stand in braces, with these. A macro may have put them into a group that can't be seen.
pub(crate) fn in_braces(input: ParseStream<'_>) -> syn::Result<Group> {
    let span = input.span();
    match input.parse() {
        Ok(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => Ok(group),
        Ok(TokenTree::Group(group)) if group.delimiter() == Delimiter::None => in_braces.parse2(group.stream()),
        _ => Err(Error::new(span, "expected a body in braces")),
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { attrs, vis, sig, body } = self;
        tokens.append_all(attrs);
        vis.to_tokens(tokens);
        sig.to_tokens(tokens);
        body.to_tokens(tokens);
    }
}

impl Function {
    /// Has the body begin with `statement`, behind the attributes that stand inside.
    pub(crate) fn begin_with(&mut self, statement: &TokenStream) {
        let split =
            |input: ParseStream<'_>| Ok((input.call(Attribute::parse_inner)?, input.call(Block::parse_within)?));
        let tokens = match split.parse2(self.body.stream()) {
            Ok((attributes, statements)) => quote!(#(#attributes)* #statement #(#statements)*),
            // The braces of the new body are not quite the old ones: an error that names one would be there twice.
            Err(_) => {
                let body = &self.body;
                quote!(#statement #body)
            }
        };
        let mut body = Group::new(Delimiter::Brace, tokens);
        body.set_span(self.body.span());
        self.body = body;
    }

    /// The name as the harness has it, crate first: an expression. Of raw names, the compiler keeps `r#` only before keywords of the
    /// edition. Names of modules are written alike.
    pub(crate) fn name(&self) -> TokenStream {
        let name = &self.sig.ident;
        if name.to_string().starts_with("r#") {
            quote!({
                mod #name {
                    pub(super) const NAME: &::core::primitive::str = ::core::module_path!();
                }
                #name::NAME
            })
        } else {
            quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)))
        }
    }
}
