//! The twin of `tests.rs`: one more impl for each type, as a dependency may have it. With it, no line there compiles.
#![cfg(feature = "one-more")]

use std::cmp::Ordering;

/// Something that can be compared with all that is usual.
pub struct Value;

macro_rules! compares {
    ($([$($parameter:ident)*] $type:ty,)*) => {
        $(impl<$($parameter),*> PartialEq<Value> for $type {
            fn eq(&self, _: &Value) -> bool {
                false
            }
        }

        impl<$($parameter),*> PartialOrd<Value> for $type {
            fn partial_cmp(&self, _: &Value) -> Option<Ordering> {
                None
            }
        })*
    };
}

compares! {
    [] u8, [] u16, [] u32, [] u64, [] u128, [] usize,
    [] i8, [] i16, [] i32, [] i64, [] i128, [] isize,
    [] f32, [] f64, [] bool, [] char, [] str, [] String,
    [T] Option<T>, [A B] (A, B),
}

impl AsRef<Value> for [u8] {
    fn as_ref(&self) -> &Value {
        &Value
    }
}
