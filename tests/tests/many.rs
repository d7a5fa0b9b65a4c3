//! A test binary of 10,000 empty tests: 5,000 that are isolated, and as many that are not. `cargo bench -p belljar-tests --bench empty --
//! many` builds and measures it.

include!("../peers/many.rs");

macro_rules! five_thousand {
    ($($item:tt)*) => {
        mod m0 { ten! { ten! { ten! { $($item)* } } } }
        mod m1 { ten! { ten! { ten! { $($item)* } } } }
        mod m2 { ten! { ten! { ten! { $($item)* } } } }
        mod m3 { ten! { ten! { ten! { $($item)* } } } }
        mod m4 { ten! { ten! { ten! { $($item)* } } } }
    };
}

mod isolated {
    five_thousand! {
        #[belljar::isolated]
        fn empty() {}
    }
}

mod plain {
    five_thousand! {
        #[test]
        fn empty() {}
    }
}
