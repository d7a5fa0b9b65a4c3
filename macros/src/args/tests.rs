use insta::assert_snapshot;
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

/// All errors of each, below its tokens.
fn told(all: &[TokenStream]) -> String {
    let told = |tokens: &TokenStream| format!("# {tokens}\n{}\n", errors(tokens.clone()).join("\n"));
    all.iter().map(told).collect()
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
    let from = args(quote!(net, from = a::b, user = 7));
    assert!(from.net && from.mount && from.from.is_some());
    let bad = [
        quote!(net, root = "overlay"),
        quote!(root = "image"),
        quote!(root = "//."),
        quote!(root = "oci:"),
        quote!(uids = 0),
        quote!(uids = 100, user = 100),
        quote!(uids = 100, user = "1:100"),
        quote!(uids = 100, user = "host"),
        quote!(from = a::b, root = "overlay", uids = 5, bind = ["/a"], tmpfs = "1MiB", mount),
        quote!(user = "host", from = a),
        quote!(from = "a"),
    ];
    assert_snapshot!(told(&bad), @r#"
    # net , root = "overlay"
    `root` says what the test's own root holds, and without `mount` there is none: write `mount` too
    # root = "image"
    `image` is no root: did you mean "./image"?

    write "tmpfs", "overlay", the path of a directory that begins with `/` or `./`, or an image as "oci:DIR" or "image.tar"
    # root = "//."
    `/` is the host's tree: write "overlay" for a copy of it
    # root = "oci:"
    `oci:` is no root: write "tmpfs", "overlay", the path of a directory that begins with `/` or `./`, or an image as "oci:DIR" or "image.tar"
    # uids = 0
    `0` is no number of ids: write a number from 1 to 4294967295
    # uids = 100 , user = 100
    `user` is 100:100, and of 100 ids the last is 99: raise `uids`
    # uids = 100 , user = "1:100"
    `user` is 1:100, and of 100 ids the last is 99: raise `uids`
    # uids = 100 , user = "host"
    with `user = "host"` all ids are the host's: remove `uids`
    # from = a :: b , root = "overlay" , uids = 5 , bind = ["/a"] , tmpfs = "1MiB" , mount
    with `from`, the preparation says what makes the root: write `root` there
    with `from`, the preparation says what makes the root: write `uids` there
    with `from`, the preparation says what makes the root: write `bind` there
    with `from`, the preparation says what makes the root: write `tmpfs` there
    with `from`, the preparation says what makes the root: write `mount` there
    # user = "host" , from = a
    with `from`, the preparation says what makes the root: write `user = "host"` there
    # from = "a"
    expected a path: write `from = path::to::preparation`
    "#);
}

#[test]
fn values_have_their_bounds() {
    let pairs = [
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
    ];
    for (good, _) in &pairs {
        assert!(errors(good.clone()).is_empty(), "{good}");
    }
    assert_snapshot!(told(&pairs.map(|(_, bad)| bad)), @r#"
    # memory = "1MB"
    `1MB` is too little for a sandbox: give it at least 1.0 MiB
    # memory = "much"
    `much` is no size in bytes: write one like "64MiB", "1.5GiB" or "200MB"
    # memory = "-2GiB"
    `-2GiB` is no size in bytes: write one like "64MiB", "1.5GiB" or "200MB"
    # pids = 1
    `1` is no limit on processes and threads: write a number from 2 (what the test itself takes) to 4194303
    # pids = 4_194_304
    `4_194_304` is no limit on processes and threads: write a number from 2 (what the test itself takes) to 4194303
    # cpu = 0.009
    `0.009` is no number of cores: write one from 0.01 to 1000
    # cpu = 1000.1
    `1000.1` is no number of cores: write one from 0.01 to 1000
    # bind = ["/a/.."]
    `/a/..` names the root of the host, which the sandbox covers; name what is below it: write "/src", "/src:rw", "/src:/dst" or "/src:/dst:rw"
    # bind = ["../../../../../../../../../../../../../../../.."]
    `../../../../../../../../../../../../../../../..` names the root of the host, which the sandbox covers; name what is below it: write "/src", "/src:rw", "/src:/dst" or "/src:/dst:rw"
    # bind = ["a:wr"]
    `a:wr` has a path inside the sandbox that does not begin with `/`: write "/src", "/src:rw", "/src:/dst" or "/src:/dst:rw"
    # bind = ["a:/b/../c"]
    `a:/b/../c` has a path inside the sandbox that is `/` or has `..` in it: write "/src", "/src:rw", "/src:/dst" or "/src:/dst:rw"
    "#);
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
    assert_snapshot!(told(&[tokens]), @r#"
    # network , timeout = "5x" , net = 1 , net , net , hostname = "a b" , timeout , , crate = 5
    unknown argument `network`: did you mean `net`?

    words:   net, mount, user, pid, ipc, uts, cgroup, time
    options: timeout = "5s", memory = "64MiB", pids = 32, cpu = 0.5,
             root = "overlay", from = path::to::preparation, tmpfs = "256MiB", hostname = "web1",
             user = 1000, uids = 65536, bind = ["/src:/dst:rw"], env = ["NAME=value"],
             clear_env, boottime = "30d", monotonic = "1h", unsupported = "skip",
             crate = path::to::belljar
    `5x` is no duration (unknown time unit "x", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)): write one like "5s", "250ms" or "1m 30s"
    `net` stands alone: write `net`, then a comma
    `net` is written twice: remove one
    `a b` is no host name: a host name has 1 to 64 letters, digits, `-`, `.` or `_`
    `timeout` takes a value: write `timeout = "5s"`
    expected an argument before this comma
    expected a path: write `crate = path::to::belljar`
    "#);
}

#[test]
fn arguments_of_a_module_and_of_its_test_are_put_together() {
    let merged = |module: TokenStream, own: TokenStream| {
        let merged = merge(module, own);
        let text = merged.to_string();
        assert!(Args::parse(merged).1.is_none(), "{text}");
        text
    };
    // Words are added to those of the module, which without any has all that `#[isolated]` has.
    assert_eq!(merged(quote!(), quote!()), "");
    assert_eq!(merged(quote!(), quote!(net)), "net , mount");
    assert_eq!(merged(quote!(timeout = "1s"), quote!(uts, time)), "net , mount , timeout = \"1s\" , uts , time");
    // Alone, the attribute asks for all.
    assert_eq!(merged(quote!(net), quote!()), "net , mount");
    assert_eq!(merged(quote!(uts, pids = 8), quote!()), "uts , pids = 8 , net , mount");
    assert_eq!(merged(quote!(net, mount), quote!()), "net , mount");
    assert_eq!(merged(quote!(pids = 8), quote!()), "pids = 8");
    assert_eq!(merged(quote!(uts, from = a), quote!()), "uts , from = a , net");
    assert_eq!(merged(quote!(net), quote!(timeout = "1s")), "net , timeout = \"1s\"");
    assert_eq!(merged(quote!(net), quote!(mount)), "net , mount");
    assert_eq!(merged(quote!(net), quote!(net, timeout = "1s")), "net , timeout = \"1s\"");
    // Of options, the own ones hold.
    assert_eq!(merged(quote!(pids = 8, cpu = 1), quote!(cpu = 2)), "pids = 8 , cpu = 2");
    assert_eq!(merged(quote!(clear_env), quote!(clear_env)), "clear_env");
    assert_eq!(merged(quote!(user), quote!(user = 7, uids = 8)), "user , user = 7 , uids = 8");
    assert_eq!(merged(quote!(env = ["A=1", "B=1"]), quote!(env = ["B=2"])), "env = [\"A=1\" , \"B=2\"]");
    assert_eq!(merged(quote!(bind = ["/a", "/b:/c"]), quote!(bind = ["/d:/c:rw"])), "bind = [\"/a\" , \"/d:/c:rw\"]");
    // The root of a preparation is one of its own.
    assert_eq!(merged(quote!(), quote!(from = a)), "from = a");
    assert_eq!(merged(quote!(), quote!(from = a, net)), "net , from = a");
    assert_eq!(merged(quote!(net, mount), quote!(from = a)), "net , from = a");
    assert_eq!(merged(quote!(from = a), quote!(mount, pids = 9)), "net , from = a , pids = 9");
    // What is wrong is said by who reads it.
    assert_eq!(merge(quote!("a"), quote!(b =, c)).to_string(), "\"a\" , b = , c");
    assert_eq!(merge(quote!(env = 1), quote!(env = ["A=1"])).to_string(), "env = [\"A=1\"]");
    assert_eq!(with_words(&quote!(env = ["A=1"])), "#[isolated]");
    assert_eq!(with_words(&quote!(net, user = 7, uts)), "#[isolated(net, uts)]");
}
