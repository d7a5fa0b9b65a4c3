//! A writer of JSON, for what belljar tells programs.
//!
//! The problem: serde_json is more than a writer. It implements `PartialEq<Value>` for numbers, `bool` and strings. The compiler looks at
//! such impls in every crate that depends on belljar, also where nobody uses JSON. Code there that infers a type then does not
//! compile any more, such as `assert_eq!(bytes, vec![])` with a `Vec<u8>`.
//!
//! The mechanism: a value is a [`Json`], and its `Display` writes it. No impl in this file is for a type of the standard library.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::collect::CollectVec as _;
use crate::sorted::Map;

/// What the key `version` says in reports and diagnoses. It grows when a key goes, or means something else, and not when one is added.
pub(crate) const VERSION: u64 = 1;

/// A value. Its text has no line breaks.
#[derive(Debug)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Integer(u64),
    /// JSON has no infinite numbers and no NaN: they are written as `null`.
    Float(f64),
    String(String),
    Array(Vec<Json>),
    /// The keys are written in alphabetical order.
    Object(Map<&'static str, Json>),
}

impl Json {
    pub(crate) fn object(members: Vec<(&'static str, Self)>) -> Self {
        let mut object = Map::new();
        for (key, value) in members {
            object.insert(key, value);
        }
        Self::Object(object)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Json {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl FromIterator<Json> for Json {
    fn from_iter<I: IntoIterator<Item = Self>>(values: I) -> Self {
        Self::Array(values.into_iter().collect_vec())
    }
}

impl Display for Json {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(number) if number.is_finite() => write!(f, "{number:?}"),
            Self::Null | Self::Float(_) => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::String(text) => write_string(text, f),
            Self::Array(values) => {
                f.write_char('[')?;
                for (at, value) in values.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    write!(f, "{value}")?;
                }
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                for (at, (key, value)) in members.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    write_string(key, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Writes a string: in quotes, with the escapes that RFC 8259 asks for, and no others.
fn write_string(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}"),
            '\n' => f.write_str("\\n"),
            '\t' => f.write_str("\\t"),
            '\0'..' ' => write!(f, "\\u{:04x}", u32::from(c)),
            _ => f.write_char(c),
        }?;
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use serde_json::Value;

    use super::*;

    const KEYS: [&str; 8] = ["", "a", "Z", "left_over", "a b", "\"", "\\n\n", "ß\u{1f980}"];

    /// The same value, as serde_json has it.
    fn theirs(value: &Json) -> Value {
        match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::from(*value),
            Json::Integer(number) => Value::from(*number),
            Json::Float(number) => Value::from(*number),
            Json::String(text) => Value::from(text.as_str()),
            Json::Array(values) => values.iter().map(theirs).collect(),
            Json::Object(members) => members.iter().map(|(key, value)| (key.to_string(), theirs(value))).collect(),
        }
    }

    /// Reads the text of `value` with serde_json, and compares.
    fn check(value: &Json) -> Value {
        let text = value.to_string();
        assert!(!text.contains(|c| c < ' '), "{text:?}");
        let read: Value = serde_json::from_str(&text).expect(&text);
        assert_eq!(read, theirs(value), "{text}");
        read
    }

    fn random(rng: &mut Rng, depth: usize) -> Json {
        match rng.usize(0..if depth == 0 { 5 } else { 7 }) {
            0 => Json::from(None::<bool>),
            1 => Json::from(rng.bool()),
            2 => Json::from(rng.u64(..) >> rng.u32(0..64)),
            3 => Json::from(f64::from_bits(rng.u64(..))),
            4 => Json::from((0..rng.usize(0..20)).map(|_| rng.char(..)).collect::<String>().as_str()),
            5 => (0..rng.usize(0..5)).map(|_| random(rng, depth - 1)).collect(),
            _ => Json::object((0..rng.usize(0..5)).map(|_| (KEYS[rng.usize(0..8)], random(rng, depth - 1))).collect()),
        }
    }

    #[test]
    fn each_kind_of_value_has_its_text() {
        let values = [None, Some(true), Some(false)].map(Json::from).into_iter().chain([0.into(), u64::MAX.into()]);
        let object = Json::object(vec![
            ("b", values.chain([1.0.into(), 0.25.into()]).collect()),
            ("a", "\0\u{1f}\r\n\t\"\\/\u{7f}é".into()),
            ("c", Json::object(vec![])),
        ]);
        let text =
            r#"{"a":"\u0000\u001f\u000d\n\t\"\\/é","b":[null,true,false,0,18446744073709551615,1.0,0.25],"c":{}}"#;
        assert_eq!(object.to_string(), text.replace("/é", "/\u{7f}é"));
    }

    #[test]
    fn each_char_can_be_written() {
        let all: Vec<_> = ('\0'..=char::MAX).collect();
        for chars in all.chunks(256) {
            check(&Json::from(chars.iter().collect::<String>().as_str()));
        }
    }

    #[test]
    fn floats_keep_each_bit() {
        let edges = [0.0, 0.1, 1.0, 1e-5, 1e15, 1e16, 1e17, 1e22, 1e23, 5e-324, 2f64.powi(53), 2f64.powi(64)];
        let limits = [f64::MAX, f64::MIN_POSITIVE, f64::EPSILON, u64::MAX as f64, f64::from_bits((1 << 52) - 1)];
        for number in edges.into_iter().chain(limits).flat_map(|number| [number, -number]) {
            assert_eq!(check(&number.into()).as_f64().map(f64::to_bits), Some(number.to_bits()), "{number:e}");
        }
    }

    #[test]
    fn what_is_no_number_is_null() {
        for number in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(check(&number.into()), Value::Null);
            assert_eq!(Json::from(number).to_string(), "null");
        }
    }

    #[test]
    fn random_values_can_be_read() {
        for seed in 0..2000 {
            println!("seed {seed}");
            check(&random(&mut Rng::with_seed(seed), 5));
        }
    }
}
