//! What becomes of modules and programs, and what is refused in them.

use insta::assert_snapshot;

use super::expansions::formatted;
use super::*;

#[test]
fn what_may_be_a_test_has_an_attribute() {
    let module = quote!(
        /// Tests.
        #[cfg(test)]
        pub(crate) mod tests {
            #![allow(unused)]
            use super::*;
            const A: &str = "a";
            macro_rules! kept {
                () => {};
            }
            /// Helps.
            #[inline]
            fn helper() {}
            #[test]
            fn plain() {}
            #[other::test]
            async fn of_a_runtime() {}
            #[isolated(timeout = "1s")]
            fn own() {}
            #[cfg_attr(a, test)]
            fn perhaps() {}
            mod deeper {}
            proptest! {
                #![proptest_config(a())]
                #[test]
                fn holds(a in 0..1) {}
            }
        }
    );
    assert_snapshot!(formatted(isolated(quote!(net, crate = glass), module)), @r#"
    /// Tests.
    #[cfg(test)]
    pub(crate) mod tests {
        #![allow(unused)]
        use super::*;
        const A: &str = "a";
        macro_rules! kept {
            () => {};
        }
        /// Helps.
        #[inline]
        fn helper() {}
        #[glass::__private::isolated_in_module(net, crate = glass)]
        #[test]
        fn plain() {}
        #[glass::__private::isolated_in_module(net, crate = glass)]
        #[other::test]
        async fn of_a_runtime() {}
        #[glass::__private::isolated_in_module(net, crate = glass)]
        #[isolated(timeout = "1s")]
        fn own() {}
        #[glass::__private::isolated_in_module(net, crate = glass)]
        #[cfg_attr(a, test)]
        fn perhaps() {}
        #[glass::__private::isolated_in_module(net, crate = glass)]
        mod deeper {}
        proptest! {
            #![proptest_config(a())] #[glass::__private::isolated_in_module(net, crate =
            glass)] #[test] fn holds(a in 0..1) {}
        }
    }
    "#);
}

#[test]
fn functions_in_modules_become_tests() {
    let own = quote!(
        #[test]
        #[belljar::isolated(pids = 8)]
        fn a() {}
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), own)), @"
    #[test]
    #[belljar::isolated(net, pids = 8)]
    fn a() {}
    ");
    let fixture = quote!(
        #[fixture]
        #[once]
        fn a() -> u8 {
            1
        }
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), fixture)), @"
    #[fixture]
    #[once]
    fn a() -> u8 {
        1
    }
    ");
    let template = quote!(
        #[template]
        #[rstest]
        #[case(1)]
        fn a(#[case] a: u8) {}
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), template)), @"
    #[template]
    #[rstest]
    #[case(1)]
    fn a(#[case] a: u8) {}
    ");
    let applied = quote!(
        #[apply(a)]
        #[serial]
        fn b(#[case] a: u8) {}
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), applied)), @r#"
    #[apply(a)]
    #[::belljar::__private::isolated_case(net)]
    #[serial]
    #[cfg_attr(
        not(all(target_os = "linux", not(miri))),
        ignore = "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
    )]
    fn b(#[case] a: u8) {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("b");
    }
    "#);
    let traced = quote!(
        #[traced_test]
        #[test]
        #[ignore]
        fn a() {}
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), traced)), @r#"
    #[traced_test]
    #[test]
    #[::belljar::__private::isolated_case(net)]
    #[ignore]
    fn a() {
        #[cfg(all(target_os = "linux", not(miri)))]
        ::belljar::__private::must_be_inside("a");
    }
    "#);
    let unknown = quote!(
        #[other::case]
        fn a() {}
    );
    let text = isolated_in_module(quote!(net, pids = 8), unknown).to_string();
    assert!(text.contains("write `#[isolated(net)]` on the function too"), "{text}");
    let module = quote!(
        #[isolated(mount)]
        mod a {
            #[test]
            fn b() {}
        }
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net, env = ["A=1"]), module)), @r#"
    mod a {
        #[::belljar::__private::isolated_in_module(net, env = ["A=1"], mount)]
        #[test]
        fn b() {}
    }
    "#);
    let unknown = quote!(
        #[other::suite]
        mod a {
            #[test]
            fn b() {}
        }
    );
    assert_snapshot!(formatted(isolated_in_module(quote!(net), unknown)), @r#"
    ::core::compile_error! {
        "`#[other::suite]` may make tests in this module, which `#[isolated]` can't see: remove it, or write `#[isolated]` on each test instead"
    }
    #[other::suite]
    mod a {
        #[test]
        fn b() {}
    }
    "#);
}

/// What the compiler has errors for too, which say less.
#[test]
fn what_is_in_other_files_is_told() {
    let elsewhere = isolated(
        quote!(net),
        quote!(
            #[path = "b.rs"]
            mod a;
        ),
    )
    .to_string();
    assert!(elsewhere.contains("in another file") && elsewhere.contains("in that file, around them"), "{elsewhere}");
    let file = quote!(
        #![allow(unused)]
        use std::fs;
        #[test]
        fn a() {}
    );
    let file = isolated(quote!(), file).to_string();
    assert!(file.contains("stable Rust has no attributes of whole files") && !file.contains("fn a"), "{file}");
}

#[test]
fn a_program_returns_its_verdict() {
    let main = quote!(
        #[tokio::main]
        pub async fn main() -> Result<(), Error> {
            body()
        }
    );
    assert_snapshot!(formatted(isolated(quote!(net), main)), @r#"
    #[cfg(all(target_os = "linux", not(miri)))]
    pub fn main() -> ::std::process::ExitCode {
        #[tokio::main]
        pub async fn main() -> Result<(), Error> {
            body()
        }
        const { ::belljar::__private::must_be_a_program(::core::module_path!()) };
        ::belljar::__private::main(const {
            &::belljar::__private::Test {
                name: ::core::concat!(
                    ::core::module_path!(), "::", ::core::stringify!(main)
                ),
                arguments: "net",
                spec: ::belljar::__private::Spec {
                    mount: false,
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..::belljar::__private::Spec::PLAIN
                },
                body: || ::belljar::__private::status(main),
                ..::belljar::__private::Test::PLAIN
            }
        })
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub fn main() -> ::std::process::ExitCode {
        ::std::eprintln!(
            "isolated tests need the namespaces of a Linux kernel, which neither other systems nor Miri have"
        );
        ::std::process::ExitCode::FAILURE
    }
    "#);
    let text = formatted(isolated(
        quote!(),
        quote!(
            #[test]
            fn main() {}
        ),
    ));
    assert!(!text.contains("ExitCode"), "{text}");
    let text = formatted(isolated(
        quote!(),
        quote!(
            async fn main() {}
        ),
    ));
    assert!(text.contains("an async `main` needs a runtime: write `#[tokio::main]` below `#[isolated]`"), "{text}");
}

#[test]
fn a_spec_is_a_constant() {
    let spec = spec(quote!(net, timeout = "1s"));
    assert_snapshot!(formatted(quote!(static SPEC: Spec = #spec;)), @r#"
    static SPEC: Spec = {
        ::belljar::__private::spec(const {
            &::belljar::__private::Test {
                name: ::core::concat!(
                    ::core::module_path!(), "::spec! at ", ::core::file!(), ":",
                    ::core::line!()
                ),
                arguments: "net , timeout = \"1s\"",
                spec: ::belljar::__private::Spec {
                    mount: false,
                    manifest_dir: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    target_tmpdir: ::core::option_env!("CARGO_TARGET_TMPDIR"),
                    ..::belljar::__private::Spec::PLAIN
                },
                timeout: ::core::option::Option::Some(
                    ::core::time::Duration::new(1u64, 0u32),
                ),
                ..::belljar::__private::Test::PLAIN
            }
        })
    };
    "#);
    assert!(super::spec(quote!(nett)).to_string().contains("did you mean `net`?"));
}
