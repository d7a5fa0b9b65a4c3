//! The whole of what the attribute is expanded to.

use insta::assert_snapshot;

use super::*;

/// As a person would write it.
pub(super) fn formatted(tokens: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(tokens).expect("items"))
}

#[test]
fn a_test_calls_run_with_a_constant() {
    assert_snapshot!(formatted(isolated(quote!(), quote!(fn a() { body(); }))), @r#"
    #[cfg(all(target_os = "linux", not(miri)))]
    #[::core::prelude::v1::test]
    fn a() {
        #[cfg(test)]
        fn a() {
            body();
        }
        ::belljar::__private::run(const {
            &::belljar::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(a)),
                arguments: "",
                spec: ::belljar::__private::Spec {
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..::belljar::__private::Spec::PLAIN
                },
                body: || ::belljar::__private::status(a),
                ..::belljar::__private::Test::PLAIN
            }
        });
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    #[::core::prelude::v1::test]
    #[ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"]
    fn a() {
        ::core::panic!(
            "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
        )
    }
    "#);
    let from = formatted(isolated(
        quote!(from = a::b, net),
        quote!(
            fn c() {
                body();
            }
        ),
    ));
    assert!(from.contains(".starting_from(<a::b as ::belljar::__private::Prepared>::TEST)"), "{from}");
    let arguments = quote!(
        net,
        mount,
        hostname = "web-1",
        user = "7:8",
        uids = 1000,
        root = "overlay",
        bind = ["/a", "b:/c:rw"],
        env = ["A=1"],
        clear_env,
        monotonic = "1h",
        timeout = "250ms",
        memory = "64MiB",
        pids = 32,
        cpu = 0.5,
        unsupported = "skip",
        crate = glass
    );
    let function = quote!(
        /// Says what it does.
        #[should_panic(expected = "on purpose")]
        #[ignore = "slow"]
        pub(crate) fn a() -> Result<(), Error> {
            body()
        }
    );
    assert_snapshot!(formatted(isolated(arguments, function)), @r#"
    #[cfg(all(target_os = "linux", not(miri)))]
    /// Says what it does.
    #[should_panic(expected = "on purpose")]
    #[ignore = "slow"]
    #[::core::prelude::v1::test]
    pub(crate) fn a() {
        #[cfg(test)]
        fn a() -> Result<(), Error> {
            body()
        }
        glass::__private::run(const {
            &glass::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(a)),
                arguments: "net , mount , hostname = \"web-1\" , user = \"7:8\" , uids = 1000 , root = \"overlay\" , bind = [\"/a\" , \"b:/c:rw\"] , env = [\"A=1\"] , clear_env , monotonic = \"1h\" , timeout = \"250ms\" , memory = \"64MiB\" , pids = 32 , cpu = 0.5 , unsupported = \"skip\" , crate = glass",
                spec: glass::__private::Spec {
                    root: glass::__private::Root::Overlay,
                    hostname: ::core::option::Option::Some("web-1"),
                    user: ::core::option::Option::Some((7u32, 8u32)),
                    ids: glass::__private::Ids::Range(1000u32),
                    time: ::core::option::Option::Some([
                        ::core::time::Duration::new(3600u64, 0u32),
                        ::core::time::Duration::new(0u64, 0u32),
                    ]),
                    binds: &[
                        glass::__private::Bind {
                            from: "/a",
                            to: "/a",
                            writable: false,
                        },
                        glass::__private::Bind {
                            from: "b",
                            to: "/c",
                            writable: true,
                        },
                    ],
                    env: &[("A", "1")],
                    clear_env: true,
                    memory: ::core::option::Option::Some(67108864u64),
                    pids: ::core::option::Option::Some(32u32),
                    cpu: ::core::option::Option::Some(500u32),
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..glass::__private::Spec::PLAIN
                },
                timeout: ::core::option::Option::Some(
                    ::core::time::Duration::new(0u64, 250000000u32),
                ),
                skip_unsupported: true,
                should_panic: ::core::option::Option::Some("on purpose"),
                body: || glass::__private::status(a),
                ..glass::__private::Test::PLAIN
            }
        });
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    /// Says what it does.
    #[should_panic(expected = "on purpose")]
    #[ignore = "slow"]
    #[::core::prelude::v1::test]
    pub(crate) fn a() {
        ::std::eprintln!(
            "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
        )
    }
    "#);
    let words = isolated(
        quote!(uts),
        quote!(
            extern "C" fn a() {}
        ),
    );
    assert_snapshot!(formatted(words), @r#"
    #[cfg(all(target_os = "linux", not(miri)))]
    #[::core::prelude::v1::test]
    fn a() {
        #[cfg(test)]
        extern "C" fn a() {}
        ::belljar::__private::run(const {
            &::belljar::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(a)),
                arguments: "uts",
                spec: ::belljar::__private::Spec {
                    net: false,
                    mount: false,
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..::belljar::__private::Spec::PLAIN
                },
                body: || ::belljar::__private::status(|| a()),
                ..::belljar::__private::Test::PLAIN
            }
        });
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    #[::core::prelude::v1::test]
    #[ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"]
    fn a() {
        ::core::panic!(
            "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
        )
    }
    "#);
}

#[test]
fn what_makes_tests_goes_first() {
    let items = [
        quote!(
            #[test]
            fn a() {}
        ),
        quote!(
            #[tokio::test(flavor = "x")]
            async fn a() {}
        ),
        quote!(
            #[y]
            #[rstest]
            fn a(b: u8) {}
        ),
        quote!(
            #[serial]
            #[rstest]
            #[x]
            #[case::x(1)]
            #[y]
            #[tokio::test]
            async fn a(#[case] b: u8) {}
        ),
    ];
    let expansions = items.map(|item| formatted(isolated(quote!(net, timeout = "90s"), item)));
    assert_snapshot!(expansions.join("\n"), @r#"
    #[test]
    #[::belljar::__private::isolated_case(net, timeout = "90s")]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
    )]
    fn a() {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("a");
    }

    #[tokio::test(flavor = "x")]
    #[::belljar::__private::isolated_case(net, timeout = "90s")]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
    )]
    async fn a() {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("a");
    }

    #[rstest]
    #[::belljar::__private::isolated_case(net, timeout = "90s")]
    #[y]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
    )]
    fn a(b: u8) {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("a");
    }

    #[rstest]
    #[x]
    #[case::x(1)]
    #[tokio::test]
    #[::belljar::__private::isolated_case(net, timeout = "90s")]
    #[serial]
    #[y]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
    )]
    async fn a(#[case] b: u8) {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("a");
    }
    "#);
}

#[test]
fn a_preparation_becomes_a_type() {
    let function = quote!(
        /// Fills it.
        #[cfg(unix)]
        #[allow(unused)]
        pub(crate) fn a() -> Result<(), E> {
            body()
        }
    );
    assert_snapshot!(formatted(prepared(quote!(timeout = "60s", from = b), function)), @r#"
    #[cfg(unix)]
    /// Fills it.
    #[allow(non_camel_case_types, reason = "it stands for a function")]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        allow(dead_code, reason = "no test starts from it there")
    )]
    pub(crate) struct a {}
    #[cfg(unix)]
    #[cfg(all(target_os = "linux", not(miri)))]
    impl ::belljar::__private::Prepared for a {
        const TEST: &'static ::belljar::__private::Test = {
            #[allow(unused)]
            fn a() -> Result<(), E> {
                body()
            }
            static __BELLJAR_PREPARATION: ::belljar::__private::Test = ::belljar::__private::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(a)),
                arguments: "timeout = \"60s\" , from = b",
                spec: ::belljar::__private::Spec {
                    is_preparation: true,
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..::belljar::__private::Spec::PLAIN
                }
                    .starting_from(<b as ::belljar::__private::Prepared>::TEST),
                timeout: ::core::option::Option::Some(
                    ::core::time::Duration::new(60u64, 0u32),
                ),
                body: || ::belljar::__private::status(a),
                ..::belljar::__private::Test::PLAIN
            };
            &__BELLJAR_PREPARATION
        };
    }
    "#);
}
