//! Tests with several ids: to map these takes more descriptors. Ordinary users run them where they have a range of ids.

use belljar::isolated;
use belljar_tests::{body, is_real_root, rounds, runners};

use super::{Scarce, run_limited};

macro_rules! has_ids {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &["body", $(concat!("ids::", stringify!($name)),)*];

        $(
            #[body]
            #[isolated(uids = 65536)]
            fn $name() {
                println!("{} ran", stringify!($name));
            }
        )*
    };
}

has_ids!(has_ids_0 has_ids_1 has_ids_2 has_ids_3 has_ids_4 has_ids_5 has_ids_6 has_ids_7);

#[test]
fn tests_with_several_ids_run_or_name_the_limit() {
    let count = NAMES.len() - 1;
    for runner in runners() {
        let run = run_limited(*runner, NAMES, "true", 4);
        if !run.passed() {
            // Real root can map all ids.
            assert!(runner.is_some() || !is_real_root(), "{}", run.output);
            let causes =
                ["subordinate ids are needed", "newuidmap is not installed", "fewer than 65536 ids are mapped here"];
            assert!(causes.iter().any(|cause| run.output.contains(cause)), "{}", run.output);
            println!("not tried as {runner:?}, who has no range of ids here");
            continue;
        }
        for limit in (3..=64).step_by((64 / rounds(12)).max(1)) {
            let run = run_limited(*runner, NAMES, &format!("ulimit -n {limit}"), 1 + limit % 4);
            let context = format!("{limit} descriptors, as {runner:?}: {}", run.output);
            assert!(run.status.code() != Some(137), "it did not end by itself: {context}");
            assert!(run.left.is_empty(), "it left {:?}: {context}", run.left);
            if run.status.success() {
                assert_eq!(run.output.matches(" ran\n").count(), count, "{context}");
            } else if run.output.contains("test result: ") {
                assert!(Scarce::Files.named().iter().any(|word| run.output.contains(word)), "{context}");
            }
        }
        let run = run_limited(*runner, NAMES, "ulimit -n 64", 4);
        assert!(run.passed(), "64 descriptors, as {runner:?}: {}", run.output);
    }
}
