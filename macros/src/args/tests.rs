use quote::{ToTokens as _, quote};

use super::*;

fn words(tokens: TokenStream) -> (bool, bool) {
    let (args, error) = Args::parse(tokens);
    assert!(error.is_none(), "{error:?}");
    (args.net, args.mount)
}

fn errors(tokens: TokenStream) -> Vec<String> {
    let (_, error) = Args::parse(tokens);
    error.into_iter().flatten().map(|error| error.to_string()).collect()
}

#[test]
fn words_choose_what_is_replaced() {
    assert_eq!(words(quote!()), (true, true));
    assert_eq!(words(quote!(timeout = "1s", hostname = "a")), (true, true));
    assert_eq!(words(quote!(net, mount)), (true, true));
    assert_eq!(words(quote!(net)), (true, false));
    assert_eq!(words(quote!(mount, timeout = "1s",)), (false, true));
    assert_eq!(words(quote!(uts)), (false, false));
}

#[test]
fn values_are_read() {
    let (args, error) = Args::parse(quote!(
        timeout = "1m 30s",
        hostname = "web-1.lan",
        crate = a::b,
        memory = "1.5 GiB",
        pids = 0x20,
        cpu = 1.25
    ));
    assert!(error.is_none());
    assert_eq!(args.memory, Some(3 << 29));
    assert_eq!(args.pids, Some(32));
    assert_eq!(args.cpu, Some(1250));
    assert_eq!(args.timeout, Some(Duration::from_secs(90)));
    assert_eq!(args.hostname.as_deref(), Some("web-1.lan"));
    assert_eq!(args.krate.to_token_stream().to_string(), "a :: b");
}

#[test]
fn lists_are_read() {
    let (args, error) = Args::parse(quote!(
        bind = ["/a", "b:/c", "/d:/e:rw", "f:rw", "../g:ro"],
        env = ["A=", "B=c=d"],
        clear_env,
        monotonic = "1h"
    ));
    assert_eq!(Args::parse(quote!(user = "7:8")).0.user, Some((7, 8)));
    assert_eq!(Args::parse(quote!(user = 1000)).0.user, Some((1000, 1000)));
    assert!(words(quote!(user)) == (false, false) && Args::parse(quote!(user)).0.user.is_none());
    assert!(error.is_none(), "{error:?}");
    let binds: Vec<_> = args.binds.iter().map(|bind| (&*bind.from, &*bind.to, bind.writable)).collect();
    assert_eq!(
        binds,
        [("/a", "/a", false), ("b", "/c", false), ("/d", "/e", true), ("f", "f", true), ("../g", "../g", false)]
    );
    assert_eq!(args.env, [("A", ""), ("B", "c=d")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(args.clear_env && args.net && args.mount);
    assert_eq!(args.time, Some([Duration::from_secs(3600), Duration::ZERO]));
    assert_eq!(Args::parse(quote!(time)).0.time, Some([Duration::ZERO; 2]));
    assert_eq!(Args::parse(quote!(net)).0.time, None);
}

#[test]
fn roots_and_ids_are_read() {
    let args = |tokens: TokenStream| {
        let (args, error) = Args::parse(tokens);
        assert!(error.is_none(), "{error:?}");
        args
    };
    assert_eq!(args(quote!()).root, Root::Tmpfs);
    assert_eq!(args(quote!(root = "overlay")).root, Root::Overlay);
    assert_eq!(args(quote!(mount, root = "./image")).root, Root::Directory("./image".to_owned()));
    assert_eq!(args(quote!(uids = 1)).ids, Ids::One);
    assert_eq!(args(quote!(uids = 65536, user = 65535)).ids, Ids::Range(65536));
    assert_eq!(args(quote!(user = "host")).ids, Ids::Host);
    assert_eq!(args(quote!(user = 7)).ids, Ids::One);
    for bad in [
        quote!(net, root = "overlay"),
        quote!(root = "image"),
        quote!(root = "//."),
        quote!(uids = 0),
        quote!(uids = 100, user = 100),
        quote!(uids = 100, user = "1:100"),
        quote!(uids = 100, user = "host"),
    ] {
        assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
    }
}

#[test]
fn values_have_their_bounds() {
    for (good, bad) in [
        (quote!(memory = "1MiB"), quote!(memory = "1MB")),
        (quote!(memory = "1000000000"), quote!(memory = "much")),
        (quote!(memory = "2gib"), quote!(memory = "-2GiB")),
        (quote!(pids = 2), quote!(pids = 1)),
        (quote!(pids = 4_194_303), quote!(pids = 4_194_304)),
        (quote!(cpu = 0.01), quote!(cpu = 0.009)),
        (quote!(cpu = 1000), quote!(cpu = 1000.1)),
        (quote!(bind = ["a/.."]), quote!(bind = ["/a/.."])),
        (quote!(bind = [".."]), quote!(bind = ["../../../../../../../../../../../../../../../.."])),
        (quote!(bind = ["a:rw"]), quote!(bind = ["a:wr"])),
        (quote!(bind = ["a:/ro"]), quote!(bind = ["a:/b/../c"])),
    ] {
        assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
        assert!(errors(good.clone()).is_empty(), "{good}");
    }
}

#[test]
fn another_name_is_found() {
    let found = |arguments: &str| other_name(arguments.split(' ').map(OsString::from));
    assert_eq!(found("rustc --extern glass=/a/libbelljar-0.rlib --extern b=/b.rlib").as_deref(), Some("glass"));
    assert_eq!(found("rustc --extern=priv:glass=/a=b/libbelljar.rmeta").as_deref(), Some("glass"));
    assert_eq!(found("rustc --extern glass=/a/libbelljar-0.rlib --extern belljar=/a/libbelljar-0.rlib"), None);
    assert_eq!(found("rustc --extern glass=/a/libglass-0.rlib --extern m=/a/libbelljar_macros-0.so"), None);
    assert_eq!(found("rust-analyzer-proc-macro-srv"), None);
}

#[test]
fn every_error_is_reported_at_once() {
    let tokens = quote!(network, timeout = "5x", net = 1, net, net, hostname = "a b", timeout, , crate = 5);
    let errors = errors(tokens);
    assert_eq!(errors.len(), 8, "{errors:#?}");
    for (error, part) in errors.iter().zip([
        "unknown argument `network`",
        "`5x` is no duration",
        "`net` stands alone",
        "`net` is written twice",
        "`a b` is no host name",
        "`timeout` takes a value",
        "before this comma",
        "expected a path",
    ]) {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}
