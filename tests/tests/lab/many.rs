//! Two hundred laboratories, eight at a time: each has all that it was asked for, and loses what the others lose.

use belljar::isolated;
use belljar::net::Lab;
use belljar_tests::{rounds, this_binary};

use crate::{PATIENCE, greets, next, socket};

/// Which of 30 datagrams are lost, by a loss of a fifth and the seed 7.
const LOST: [u8; 7] = [3, 5, 6, 9, 16, 17, 25];

/// Makes a laboratory, and uses it.
fn use_one() {
    let mut lab = Lab::new();
    let [server, client] = ["server", "client"].map(|name| lab.host(name));
    let net = lab.seed(7).up().expect("up");
    greets(&server, &client, "server:80").expect("greet");
    net.port(&client).from_host().loss(0.2);
    let (there, here) = (socket(&server, "10.0.0.1:53", PATIENCE), socket(&client, "10.0.0.2:53", PATIENCE));
    (0..30_u8).for_each(|number| _ = here.send_to(&[number], "10.0.0.1:53").expect("send"));
    net.port(&client).loss(0.0);
    here.send_to(&[30], "10.0.0.1:53").expect("send");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&30) {
        numbers.extend(next(&there).expect("all have come"));
    }
    let lost: Vec<_> = (0..30).filter(|number| !numbers.contains(number)).collect();
    assert_eq!(lost, LOST);
}

macro_rules! two_hundred {
    ($($module:ident)*) => { mod labs { $(mod $module { $crate::many::ten!(a b c d e f g h i j); })* } };
}
macro_rules! ten {
    ($($name:ident)*) => {
        $(#[belljar_tests::body]
        #[belljar::isolated]
        fn $name() {
            $crate::many::use_one();
        })*
    };
}
use ten;

two_hundred!(a b c d e f g h i j k l m n o p q r s t);

#[test]
#[ignore = "takes some seconds: with BELLJAR_TESTS_ROUNDS=50, some minutes; .ci/run leaves it out"]
fn two_hundred_laboratories_eight_at_a_time() {
    for round in 0..rounds(1) {
        let run = belljar_tests::run(this_binary().args(["--exact", "--test-threads=8", "body", "*labs::*"]));
        assert!(run.output.contains("test result: ok. 200 passed; 0 failed;"), "round {round}: {}", run.output);
        assert!(run.left.is_empty(), "round {round} left {:?}", run.left);
    }
}

#[isolated]
fn one_laboratory_loses_what_the_others_lose() {
    use_one();
}
