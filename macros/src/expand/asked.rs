//! Writes what a test asks for: the fields of `Test` and `Spec` that are not as in a test that asks for nothing.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::LitStr;
use syn::spanned::Spanned as _;

use crate::args::{Args, Bind, Ids, Root};

/// The sandbox, as an expression. `is_preparation`: of a preparation.
pub(super) fn spec(args: &Args, is_preparation: bool) -> TokenStream {
    let Args { memory, pids, cpu, tmpfs, hostname, binds, env, krate, from, .. } = args;
    let some = some();
    let not = |holds: bool, field: TokenStream| (!holds).then_some(field);
    let root = match &args.root {
        Root::Tmpfs => None,
        Root::Overlay => Some(quote!(Overlay)),
        Root::Directory(path) => Some(quote!(Directory(#path))),
        Root::Image(image) => Some(quote!(Image(#image))),
    };
    let ids = match args.ids {
        Ids::One => None,
        Ids::Range(ids) => Some(quote!(Range(#ids))),
        Ids::Host => Some(quote!(Host)),
    };
    let time = args.time.map(|clocks| clocks.map(duration));
    let shown = binds.iter().map(
        |Bind { from, to, writable }| quote!(#krate::__private::Bind { from: #from, to: #to, writable: #writable }),
    );
    let variables = env.iter().map(|(name, value)| quote!((#name, #value)));
    let differences = [
        not(args.net, quote!(net: false)),
        not(args.mount, quote!(mount: false)),
        root.map(|root| quote!(root: #krate::__private::Root::#root)),
        is_preparation.then(|| quote!(is_preparation: true)),
        tmpfs.map(|bytes| quote!(tmpfs: #some(#bytes))),
        hostname.as_ref().map(|name| quote!(hostname: #some(#name))),
        args.user.map(|(uid, gid)| quote!(user: #some((#uid, #gid)))),
        ids.map(|ids| quote!(ids: #krate::__private::Ids::#ids)),
        time.map(|clocks| quote!(time: #some([#(#clocks),*]))),
        not(binds.is_empty(), quote!(binds: &[#(#shown),*])),
        not(env.is_empty(), quote!(env: &[#(#variables),*])),
        args.clear_env.then(|| quote!(clear_env: true)),
        memory.map(|bytes| quote!(memory: #some(#bytes))),
        pids.map(|pids| quote!(pids: #some(#pids))),
        cpu.map(|cpu| quote!(cpu: #some(#cpu))),
    ];
    let differences = differences.iter().flatten();
    let starting_from = from.as_ref().map(|from| {
        let span = from.span();
        quote_spanned!(span=> .starting_from(<#from as #krate::__private::Prepared>::TEST))
    });
    quote! {
        #krate::__private::Spec {
            #(#differences,)*
            manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
            target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
            ..#krate::__private::Spec::PLAIN
        }
        #starting_from
    }
}

/// The fields of the test itself, each with a comma behind it.
pub(super) fn differences(args: &Args, should_panic: Option<&LitStr>) -> TokenStream {
    let some = some();
    let timeout = args.timeout.map(duration).map(|timeout| quote!(timeout: #some(#timeout),));
    let skip_unsupported = args.skip_unsupported.then(|| quote!(skip_unsupported: true,));
    let should_panic = should_panic.map(|expected| quote!(should_panic: #some(#expected),));
    quote!(#timeout #skip_unsupported #should_panic)
}

fn some() -> TokenStream {
    quote!(::core::option::Option::Some)
}

fn duration(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}
