//! What becomes of functions, attributes and locks, and what is refused.

use insta::assert_snapshot;

use super::expansions::formatted;
use super::*;

fn expanded_below(above: Above, args: TokenStream, item: TokenStream) -> String {
    on_linux(&expand(args, item, |_| above))
}

fn expanded(args: TokenStream, item: TokenStream) -> String {
    on_linux(&isolated(args, item))
}

/// The test as it is where there are sandboxes, without white space.
fn on_linux(tokens: &TokenStream) -> String {
    let text = tokens.to_string().replace(' ', "");
    match text.strip_prefix("#[cfg(all(target_os=\"linux\",not(miri)))]") {
        Some(rest) => rest.split(ELSE).next().unwrap_or_default().to_owned(),
        None => text,
    }
}

/// With this begins the test as it is elsewhere.
const ELSE: &str = "#[cfg(not(all(target_os=\"linux\",not(miri))))]";

/// The texts of all `compile_error!`.
fn errors(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_error = false;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => is_error = name == "compile_error",
            TokenTree::Group(group) if is_error => {
                found.extend(syn::parse2::<LitStr>(group.stream()).map(|text| text.value()));
                is_error = false;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn makes_a_test_unless_there_is_one() {
    for item in [
        quote!(
            fn a() {}
        ),
        quote!(
            #[::core::prelude::v1::test]
            fn a() {}
        ),
        quote!(
            #[should_panic]
            fn a() {}
        ),
    ] {
        let text = expanded(quote!(), item);
        assert_eq!(text.matches("#[::core::prelude::v1::test]").count(), 1, "{text}");
        assert!(text.contains("__private::run"), "{text}");
    }
}

#[test]
fn makes_none_where_there_is_one_above() {
    for (makers, made) in [
        (vec![], "#[::core::prelude::v1::test]"),
        (vec![Some(quote!(a))], "#[cfg_attr(not(a),::core::prelude::v1::test)]"),
        (vec![Some(quote!(a)), Some(quote!(b))], "#[cfg_attr(not(any(a,b)),::core::prelude::v1::test)]"),
        (vec![Some(quote!(a)), None], ""),
        (vec![None], ""),
    ] {
        let text = expanded_below(
            Above { makers, ..Above::default() },
            quote!(),
            quote!(
                fn a() {}
            ),
        );
        assert!(text.starts_with(&format!("{made}fna(){{#[cfg(test)]fna(){{}}")), "{text}");
    }
    assert!(
        on_linux(&isolated_case(
            quote!(),
            quote!(
                fn a() {}
            )
        ))
        .starts_with("fna")
    );
}

#[test]
fn one_case_of_several_is_refused() {
    let above = Above { makers: vec![None], is_for_one_case: true, ..Above::default() };
    let tokens = expand(
        quote!(),
        quote!(
            fn case_1() {}
        ),
        |_| above,
    );
    assert_snapshot!(errors(tokens).join("\n"), @"before one of several cases, `#[isolated]` is for that case alone, and the others would run on the host: write it below the last `#[case]`, or above `#[rstest]`");
}

#[test]
fn one_case_of_ntest_is_refused() {
    let above =
        |lacks_some_cases| move |_: &Function| Above { makers: vec![None; 2], lacks_some_cases, ..Above::default() };
    let of_ntest = quote!(
        fn name_1() {
            let number: u32 = 1;
            {
                body();
            }
        }
    );
    assert_snapshot!(errors(expand(quote!(), of_ntest.clone(), above(true))).join("\n"), @"ntest gives what stands below a case to that one alone, and the others would run on the host: write `#[isolated]` below each `#[test_case]`");
    let of_test_case = quote!(
        fn _1() {
            let _result = super::name(1);
            _result
        }
    );
    assert_eq!(errors(expand(quote!(), of_test_case, above(true))), [""; 0]);
    assert_eq!(errors(expand(quote!(), of_ntest, above(false))), [""; 0]);
}

#[test]
fn what_would_work_outside_is_refused() {
    let items = [
        quote!(
            #[traced_test]
            fn a() {}
        ),
        quote!(
            #[tokio::test]
            #[tracing_test::traced_test]
            async fn a() {}
        ),
        quote!(
            #[template]
            #[rstest]
            #[case(1)]
            fn a(#[case] number: u32) {}
        ),
    ];
    let told = items.map(|item| errors(isolated(quote!(), item)).join("\n"));
    assert_snapshot!(told.join("\n"), @"
    below `#[isolated]`, this would look for logs outside of the sandbox: write it above
    below `#[isolated]`, this would look for logs outside of the sandbox: write it above
    a template is no test: write `#[isolated]` on each function that applies it
    ");
}

#[test]
fn bodies_are_the_compilers() {
    let body = quote!(#![a] let = if syntax else newer @ than 5 ours);
    let text = body.to_string().replace(' ', "");
    let by_itself = expanded(quote!(), quote!(fn a() { #body }));
    assert!(by_itself.contains(&format!("fna(){{{text}}}")), "{by_itself}");
    let below = expanded(quote!(), quote!(#[tokio::test] async fn a() { #body }));
    assert!(below.contains(&format!("must_be_inside(\"a\");{{{text}}}")), "{below}");
    let read = expanded(
        quote!(),
        quote!(
            #[tokio::test]
            async fn a() {
                #![a]
                b()
            }
        ),
    );
    assert!(read.contains("{#![a]#[cfg(") && read.contains("must_be_inside(\"a\");b()}"), "{read}");
}

#[test]
fn locks_are_taken_outside() {
    let body = quote!(
        fn a() {
            serial_test::local_serial_core(vec![""], None, || {});
        }
    );
    assert!(expanded(quote!(), body.clone()).contains("compile_error!"));
    let above = || Above { locks: vec![quote!(serial(x))], ..Above::default() };
    let text = expanded_below(above(), quote!(), body);
    assert!(text.starts_with("#[serial(x)]#[::core") && text.matches("serial(x)").count() == 1, "{text}");
    let text = expanded_below(
        above(),
        quote!(),
        quote!(
            #[tokio::test]
            async fn a() {}
        ),
    );
    assert!(text.starts_with("#[tokio::test]#[::belljar") && text.contains("]#[serial(x)]#[cfg_attr"), "{text}");
    let by_file = Above { has_file_lock: true, ..Above::default() };
    assert!(
        expanded_below(
            by_file,
            quote!(),
            quote!(
                fn a() {}
            )
        )
        .contains("compile_error!")
    );
    assert!(
        expanded(
            quote!(),
            quote!(
                fn a() {
                    fs_async_parallel_core();
                }
            )
        )
        .contains("compile_error!")
    );
}

#[test]
fn what_is_unfit_is_emitted_with_all_errors() {
    let items = [
        quote!(
            async unsafe fn a<T>(b: T) {}
        ),
        quote!(
            #[belljar::isolated(net)]
            fn a() {}
        ),
        quote!(
            fn a(self, b: u8) {}
        ),
        quote!(
            struct A;
        ),
    ];
    let arguments = [quote!(nett), quote!(), quote!(), quote!()].into_iter();
    let told: Vec<_> = arguments.zip(items).map(|(arguments, item)| formatted(isolated(arguments, item))).collect();
    assert_snapshot!(told.join("\n"), @r#"
    ::core::compile_error! {
        "unknown argument `nett`: did you mean `net`?\n\nwords:   net, mount, user, pid, ipc, uts, cgroup, time\noptions: timeout = \"5s\", memory = \"64MiB\", pids = 32, cpu = 0.5,\n         root = \"overlay\", from = path::to::preparation, tmpfs = \"256MiB\", hostname = \"web1\",\n         user = 1000, uids = 65536, bind = [\"/src:/dst:rw\"], env = [\"NAME=value\"],\n         clear_env, boottime = \"30d\", monotonic = \"1h\", unsupported = \"skip\",\n         crate = path::to::belljar"
    }
    ::core::compile_error! {
        "an async test needs a runtime: write `#[tokio::test]` below `#[isolated]`"
    }
    ::core::compile_error! {
        "a test takes no parameters: remove them, or write `#[isolated]` below the attribute that supplies them"
    }
    ::core::compile_error! {
        "a test has no generic parameters: write one test for each type"
    }
    ::core::compile_error! {
        "a test is no unsafe function: put the `unsafe` block inside it"
    }
    async unsafe fn a<T>(b: T) {}

    ::core::compile_error! {
        "`#[isolated]` is there twice: remove one"
    }
    #[belljar::isolated(net)]
    fn a() {}

    ::core::compile_error! {
        "a test is no method: write `fn` without `self`, outside of the `impl`"
    }
    fn a(self, b: u8) {}

    ::core::compile_error! {
        "`#[isolated]` goes on a test function, `#[isolated] fn name() { .. }`, or on a module of tests, `#[isolated] mod tests { .. }`"
    }
    struct A;
    "#);
    // What no parser takes.
    let text = expanded(quote!(), quote!(fn a() -> {}));
    assert!(text.contains("can'treadthisfunction") && text.ends_with("fna()->{}"), "{text}");
}
