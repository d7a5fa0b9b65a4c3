//! Tests that start from preparations, which nextest runs in processes of their own.
#![cfg(all(feature = "isolated", target_os = "linux", not(miri)))]

use std::time::Duration;
use std::{fs, io};

use belljar::prepared;

#[prepared]
fn files() -> io::Result<()> {
    fs::create_dir("/data")?;
    for number in 0..100 {
        fs::write(format!("/data/{number}"), number.to_string())?;
    }
    // Long enough for others to wait, and for somebody to be killed.
    std::thread::sleep(Duration::from_millis(50));
    fs::write("/data/last", "")
}

#[prepared(from = files)]
fn more_files() -> io::Result<()> {
    fs::remove_file("/data/0")?;
    fs::write("/data/more", "")
}

#[prepared]
fn fails() {
    panic!("on purpose");
}

/// The target directory lies in the tree that it copies.
#[prepared(root = "overlay")]
fn whole_tree() -> io::Result<()> {
    fs::write("/prepared", "")
}

#[belljar::isolated(from = whole_tree)]
fn from_the_whole_tree() {
    assert!(fs::exists("/prepared").expect("stat"));
}

/// Two of one name: the module is written by where it is, and functions are no part of that.
mod same {
    macro_rules! test {
        ($name:ident $text:literal) => {
            #[test]
            fn $name() {
                #[belljar::prepared]
                fn one_name() {
                    std::fs::write("/file", $text).expect("write");
                }

                #[belljar::__private::isolated_case(from = one_name)]
                fn starts() {
                    assert_eq!(std::fs::read_to_string("/file").expect("read"), $text);
                }
                starts();
            }
        };
    }
    test!(first "first");
    test!(second "second");
}

fn use_up() {
    for number in 1..100 {
        assert_eq!(fs::read_to_string(format!("/data/{number}")).expect("half of it"), number.to_string());
    }
    assert!(fs::exists("/data/last").expect("stat"));
    fs::remove_dir_all("/data").expect("remove");
}

macro_rules! tests {
    ($($name:ident $more:ident)*) => {
        $(#[belljar::isolated(from = files)]
        fn $name() {
            use_up();
        }

        #[belljar::isolated(from = more_files)]
        fn $more() {
            assert!(fs::exists("/data/more").expect("stat") && !fs::exists("/data/0").expect("stat"));
            use_up();
        })*
    };
}

tests!(a more_a b more_b c more_c d more_d e more_e);

mod failing {
    macro_rules! failing {
        ($($name:ident)*) => {
            $(#[belljar::isolated(from = super::fails)]
            fn $name() {})*
        };
    }
    failing!(a b c);
}
