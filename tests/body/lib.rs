//! The attribute `#[body]` of `belljar_tests`, which documents it.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Attribute, Error, ItemFn, LitStr, Meta, parse_macro_input, parse_quote};

/// Makes a body of a function, in the place of a test: alone, or above `#[isolated]`.
#[proc_macro_attribute]
pub fn body(_: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    expand(&mut function).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(function: &mut ItemFn) -> Result<Tokens, Error> {
    let is = |name: &'static str| {
        move |attribute: &Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == name)
    };
    let should_panic = match function.attrs.iter().find(|attribute| is("should_panic")(attribute)) {
        None => quote!(None),
        Some(Attribute { meta: Meta::Path(_), .. }) => quote!(Some("")),
        Some(attribute) => {
            let mut expected = None;
            attribute.parse_nested_meta(|meta| {
                expected = Some(meta.value()?.parse::<LitStr>()?);
                Ok(())
            })?;
            quote!(Some(#expected))
        }
    };
    // What is imported for the attribute shall count as used.
    let mut import = None;
    if let Some(attribute) = function.attrs.iter_mut().find(|attribute| is("isolated")(attribute)) {
        let path = attribute.path();
        import = Some(quote!(#[allow(unused_imports, reason = "it is used above")] use #path as _;));
        // That makes no test of it.
        let arguments = match &attribute.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => Tokens::new(),
        };
        *attribute = parse_quote!(#[::belljar::__private::isolated_case(#arguments)]);
    } else {
        function.attrs.retain(|attribute| !is("should_panic")(attribute));
    }
    let name = &function.sig.ident;
    Ok(quote! {
        #function

        const _: () = {
            #import
            #[::belljar_tests::linkme::distributed_slice(::belljar_tests::BODIES)]
            #[linkme(crate = ::belljar_tests::linkme)]
            static BODY: ::belljar_tests::Body = ::belljar_tests::Body {
                path: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                should_panic: #should_panic,
                function: #name,
            };
        };
    })
}
