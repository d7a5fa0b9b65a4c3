//! Code in which the compiler can infer a type because one impl alone fits. It compiles without belljar, so it must compile with it.
//!
//! One more impl anywhere in the dependencies is enough that it does not compile: serde_json has `impl PartialEq<Value> for u8`, and so
//! on. Each line is an item of its own, so that each has an error of its own. `one_more.rs` is the twin: `run` looks that each line here
//! fails with it.
#![expect(clippy::comparison_to_empty, reason = "it is what people write")]

#[cfg(feature = "one-more")]
use inference as _;

/// The compiler does not look at crates that nobody names.
#[belljar::isolated]
fn belljar_is_here() {
    assert_eq!(std::os::unix::process::parent_id(), 1);
}

// What is empty, of each type.
const _: fn(Vec<u8>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<u16>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<u32>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<u64>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<u128>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<usize>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<i8>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<i16>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<i32>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<i64>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<i128>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<isize>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<f32>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<f64>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<bool>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<char>) = |none| assert_eq!(none, vec![]);
const _: fn(Vec<u8>) = |none| assert_eq!(none, Vec::new());
const _: fn([u16; 0]) = |none| assert_eq!(none, []);
const _: fn(&[u32]) = |none| assert_eq!(none, &[]);
const _: fn(&[i64]) -> bool = |none| none == [];

// Conversions.
const _: fn(usize, u8) -> bool = |n, m| n == m as _;
const _: fn(i32, u8) = |n, m| assert_eq!(n, m as _);
const _: fn(u16, u8) -> bool = |n, m| n == m.into();
const _: fn(u32, u16) = |n, m| assert_eq!(n, m.into());
const _: fn(u8) -> bool = |n| u64::from(n) == n.into();
const _: fn(u8) -> bool = |n| Into::<i128>::into(n) == n.into();
const _: fn(usize, u64) -> bool = |n, m| n == m.try_into().unwrap();
const _: fn(f64, f32) -> bool = |n, m| n == m.into();
const _: fn(char, u8) -> bool = |c, byte| c == byte.into();
const _: fn(&str) -> bool = |text| text.chars().eq("..".bytes().map(Into::into));
const _: fn(Vec<u16>, &[u8]) = |n, m| assert_eq!(n, m.iter().map(|m| (*m).into()).collect::<Vec<_>>());

// What functions return that are generic.
const _: fn(i64) -> bool = |n| n == Default::default();
const _: fn(f32) = |n| assert_eq!(n, Default::default());
const _: fn(bool) -> bool = |yes| yes == Default::default();
const _: fn(u16) -> bool = |port| port == "80".parse().unwrap();
const _: fn(i8) = |n| assert_eq!(n, "-1".parse().unwrap());
const _: fn(isize) = |n| assert_eq!(n, "-1".parse().unwrap_or_default());
const _: fn(bool) = |yes| assert_eq!(yes, "true".parse().unwrap());
const _: fn(char) = |c| assert_eq!(c, "c".parse().unwrap());
const _: fn(u64, &[u64]) -> bool = |total, all| total == all.iter().sum();
const _: fn(u128, &[u128]) = |total, all| assert_eq!(total, all.iter().copied().product());

// Order.
const _: fn(usize, u16) -> bool = |n, m| n < m.into();
const _: fn(u64, u32) -> bool = |n, m| n >= m as _;
const _: fn(f64) -> bool = |n| n > "0.5".parse().unwrap();

// Strings, bytes and what holds others. `text == "..".into()` does not compile in any case: the standard library has several impls.
const _: fn(String) -> bool = |text| text < "..".into();
const _: fn(Option<String>) -> bool = |text| text == Default::default();
const _: fn(Option<&str>) = |text| assert_eq!(text, "..".into());
const _: fn((String, u8)) = |pair| assert_eq!(pair, Default::default());
const _: fn(&[u8]) -> usize = |bytes| bytes.as_ref().len();
