//! What the attribute is expanded to.

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
fn elsewhere_a_test_is_ignored_and_does_not_pass() {
    for (item, expected) in [
        (
            quote!(
                #[should_panic]
                fn a() {}
            ),
            "#[should_panic]#[::core::prelude::v1::test]#[ignore=WHY]fna(){::std::eprintln!(WHY)}",
        ),
        (
            quote!(
                #[ignore = "slow"]
                fn a() {}
            ),
            "#[ignore=\"slow\"]#[::core::prelude::v1::test]fna(){::core::panic!(WHY)}",
        ),
    ] {
        let text = isolated(quote!(), item).to_string().replace(' ', "");
        let (_, elsewhere) = text.split_once(ELSE).expect("two of them");
        let why = format!("{ELSEWHERE:?}").replace(' ', "");
        assert_eq!(elsewhere, expected.replace("WHY", &why));
    }
}

#[test]
fn what_makes_tests_goes_first() {
    for (item, expected) in [
        (
            quote!(
                #[test]
                fn a() {}
            ),
            "#[test]OURSIGNOREDfna(){}",
        ),
        (
            quote!(
                #[tokio::test(flavor = "x")]
                async fn a() {}
            ),
            "#[tokio::test(flavor=\"x\")]OURSIGNOREDasyncfna(){}",
        ),
        (
            quote!(
                #[y]
                #[rstest]
                fn a(b: u8) {}
            ),
            "#[rstest]OURS#[y]IGNOREDfna(b:u8){}",
        ),
        (
            quote!(
                #[serial]
                #[rstest]
                #[x]
                #[case::x(1)]
                #[y]
                #[tokio::test]
                async fn a(#[case] b: u8) {}
            ),
            "#[rstest]#[x]#[case::x(1)]#[tokio::test]OURS#[serial]#[y]IGNOREDasyncfna(#[case]b:u8){}",
        ),
    ] {
        let ours = "#[::belljar::__private::isolated_case(net,timeout=\"90s\")]";
        let ignored =
            format!("#[cfg_attr(not(all(target_os=\"linux\",not(miri))),ignore={ELSEWHERE:?})]").replace(' ', "");
        let check = "{#[cfg(all(target_os=\"linux\",not(miri)))]::belljar::__private::must_be_inside(\"a\");}";
        let expected = expected.replace("OURS", ours).replace("IGNORED", &ignored).replace("{}", check);
        assert_eq!(expanded(quote!(net, timeout = "90s"), item), expected);
    }
}

#[test]
fn one_case_of_several_is_refused() {
    let above = Above { makers: vec![None], is_for_one_case: true, ..Above::default() };
    let text = expanded_below(
        above,
        quote!(),
        quote!(
            fn case_1() {}
        ),
    );
    assert_eq!(text.matches("compile_error!").count(), 1, "{text}");
}

#[test]
fn one_case_of_ntest_is_refused() {
    let above = || Above { makers: vec![None; 2], lacks_some_cases: true, ..Above::default() };
    let of_ntest = quote!(
        fn name_1() {
            let number: u32 = 1;
            {
                body();
            }
        }
    );
    assert!(expanded_below(above(), quote!(), of_ntest.clone()).contains("compile_error!"));
    let of_test_case = quote!(
        fn _1() {
            let _result = super::name(1);
            _result
        }
    );
    assert!(!expanded_below(above(), quote!(), of_test_case).contains("compile_error!"));
    let of_each = Above { lacks_some_cases: false, ..above() };
    assert!(!expanded_below(of_each, quote!(), of_ntest).contains("compile_error!"));
}

#[test]
fn what_would_work_outside_is_refused() {
    for item in [
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
    ] {
        let text = expanded(quote!(), item);
        assert_eq!(text.matches("compile_error!").count(), 1, "{text}");
    }
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
fn an_unfit_function_is_emitted_with_all_its_errors() {
    let text = expanded(
        quote!(nett),
        quote!(
            async unsafe fn a<T>(b: T) {}
        ),
    );
    assert_eq!(text.matches("compile_error!").count(), 5, "{text}");
    assert!(text.ends_with("asyncunsafefna<T>(b:T){}"), "{text}");
    let text = expanded(
        quote!(),
        quote!(
            #[belljar::isolated(net)]
            fn a() {}
        ),
    );
    assert_eq!(text.matches("compile_error!").count(), 1, "{text}");
}

#[test]
fn what_is_no_function_is_kept() {
    let text = expanded(
        quote!(),
        quote!(
            struct A;
        ),
    );
    assert!(text.contains("compile_error!") && text.ends_with("structA;"), "{text}");
}
