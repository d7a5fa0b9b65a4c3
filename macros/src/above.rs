//! Reads what the source has above our attribute, on the same function: an attribute that was there has done its work, and has
//! left no trace in the tokens that we are given.
//!
//! 1. Where our attribute, or the function, stands in which file: the compiler tells since Rust 1.88.
//! 2. The file is cut into tokens, so that comments and strings are none.
//! 3. From there back, attribute by attribute, as long as there are any.
//!
//! What is made by `macro_rules` may stand elsewhere, or nowhere. Then nothing is known to be above, and if that is wrong, the test is
//! listed twice: the runtime sees to it that it is not run twice.

use std::cell::RefCell;
use std::fs;
use std::ops::Range;
use std::rc::Rc;
use std::str::FromStr as _;

use proc_macro2::{Span, TokenStream};

use crate::lexer::{is_in_name, next};

/// The attributes that make a test of the function that they stand on, by the last name of their paths.
const MAKERS: [&str; 9] =
    ["gtest", "parameterized", "property_test", "proptest", "quickcheck", "rstest", "test", "test_case", "test_matrix"];

/// Whether an attribute makes a test of the function that it stands on, by the first and the last name of its path.
pub(crate) fn is_maker(first: &str, last: &str) -> bool {
    MAKERS.contains(&last) || (first == "test_with" && !is_file_lock(first, last))
}

/// Whether an attribute of serial_test takes a lock for the time in which the function runs.
pub(crate) fn is_lock(last: &str) -> bool {
    ["parallel", "serial"].contains(&last)
}

/// Whether an attribute takes such a lock by a file.
pub(crate) fn is_file_lock(first: &str, last: &str) -> bool {
    ["file_parallel", "file_serial"].contains(&last) || (first == "test_with" && last == "lock")
}

/// What stands above our attribute.
#[derive(Debug, Default)]
pub(crate) struct Above {
    /// For each attribute that makes a test, the condition under which it is there, as `cfg` has it.
    pub(crate) makers: Vec<Condition>,
    /// The attributes that take locks, without `#[` and `]`.
    pub(crate) locks: Vec<TokenStream>,
    /// Whether one of those takes its lock by a file.
    pub(crate) has_file_lock: bool,
    /// Whether ours stands before one `#[case]` of several: rstest gives it to that one alone.
    pub(crate) is_for_one_case: bool,
    /// Whether some `#[test_case]` has none of ours between it and the next one.
    pub(crate) lacks_some_cases: bool,
}

/// When an attribute is there. `None` stands for always.
pub(crate) type Condition = Option<TokenStream>;

/// What stands above the attribute at `attribute`, which is on the function whose name is at `name`.
pub(crate) fn above(attribute: Span, name: &proc_macro2::Ident) -> Above {
    let text = name.to_string();
    let by_attribute = || at(attribute, |source, offset| source.above_attribute(offset));
    by_attribute()
        .or_else(|| at(name.span(), |source, offset| source.above_function(offset, &text)))
        .unwrap_or_default()
}

/// Looks at the place in its file where `span` begins.
fn at(span: Span, look: impl FnOnce(&Source, usize) -> Option<Above>) -> Option<Above> {
    thread_local!(static LAST: RefCell<Option<Rc<Source>>> = const { RefCell::new(None) });
    let text = fs::read_to_string(span.local_file()?).ok()?;
    // Most often it is the same file as before.
    let source = LAST.take().filter(|source| source.text == text).unwrap_or_else(|| Rc::new(Source::new(text)));
    LAST.set(Some(Rc::clone(&source)));
    let start = span.start();
    look(&source, source.offset(start.line, start.column)?)
}

/// A file, and where its tokens are. Punctuation is cut into single characters.
struct Source {
    text: String,
    tokens: Vec<Range<usize>>,
}

impl Source {
    fn new(text: String) -> Self {
        let mut tokens = Vec::new();
        let mut start = 0;
        while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
            let (length, is_token) = next(rest);
            if is_token {
                tokens.push(start..start + length);
            }
            start += length;
        }
        Self { text, tokens }
    }

    /// Where a line, of which the first is 1, has its column, of which the first is 0.
    fn offset(&self, line: usize, column: usize) -> Option<usize> {
        let text = self.text.split_inclusive('\n').nth(line.checked_sub(1)?)?;
        let start = text.as_ptr() as usize - self.text.as_ptr() as usize;
        let (in_line, _) = text.strip_prefix('\u{feff}').unwrap_or(text).char_indices().nth(column)?;
        Some(start + in_line + text.len() - text.trim_start_matches('\u{feff}').len())
    }

    fn token(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |range| &self.text[range.clone()])
    }

    /// The number of the token that begins at `offset`.
    fn token_at(&self, offset: usize) -> Option<usize> {
        self.tokens.binary_search_by_key(&offset, |range| range.start).ok()
    }

    /// What is above the attribute that begins at `offset`.
    fn above_attribute(&self, offset: usize) -> Option<Above> {
        let index = self.token_at(offset).filter(|index| self.token(*index) == "#" && self.token(index + 1) == "[")?;
        // What `macro_rules` repeats is no attribute of ours.
        if self.token(index + 2) == "$" {
            return None;
        }
        let (before, behind) = (self.attributes_before(index), self.attributes_from(index));
        let mut above = self.collect(&before);
        let cases = |attributes: &[Range<usize>]| attributes.iter().filter(|attribute| self.is_case(attribute)).count();
        let below = cases(&behind);
        // What rstest_reuse applies has cases that stand elsewhere.
        let has_more = !above.makers.is_empty() && below + cases(&before) > 1;
        above.is_for_one_case =
            below > 0 && (has_more || before.iter().any(|attribute| self.name(attribute) == "apply"));
        let mut has_ours = true;
        for attribute in before.iter().chain(&behind) {
            let is_case = self.name(attribute) == "test_case";
            above.lacks_some_cases |= is_case && !has_ours;
            has_ours = (has_ours && !is_case) || self.has_ours(attribute);
        }
        above.lacks_some_cases |= !has_ours;
        Some(above)
    }

    /// Whether this is one of rstest's cases.
    fn is_case(&self, attribute: &Range<usize>) -> bool {
        self.token(attribute.start) == "case"
    }

    /// What is above our attribute, if the function whose name is at `offset` has it by its usual name.
    fn above_function(&self, offset: usize, name: &str) -> Option<Above> {
        let name = self.token_at(offset).filter(|index| self.token(*index) == name)?;
        let mut start = name.checked_sub(1).filter(|index| self.token(*index) == "fn")?;
        while let Some(before) = start.checked_sub(1).filter(|before| self.is_qualifier(*before)) {
            start = before;
        }
        let mut attributes: Vec<_> = self.attributes_before(start);
        let ours = attributes.iter().rposition(|attribute| self.has_ours(attribute))?;
        // If it stands in a `cfg_attr`, what comes before it there is above it.
        let last = attributes[ours].clone();
        attributes.truncate(ours);
        let mut above = self.collect(&attributes);
        self.add_before_ours(&last, &mut above);
        Some(above)
    }

    /// Adds what stands before ours in a `cfg_attr`. Both are there under the same condition.
    fn add_before_ours(&self, attribute: &Range<usize>, above: &mut Above) {
        if self.name(attribute) != "cfg_attr" {
            return;
        }
        for argument in self.arguments(attribute).iter().skip(1) {
            if self.has_ours(argument) {
                return self.add_before_ours(argument, above);
            }
            self.add(argument, &[], above);
        }
    }

    /// Whether a token may stand between a function's attributes and its `fn`.
    fn is_qualifier(&self, index: usize) -> bool {
        let token = self.token(index);
        let words =
            ["async", "const", "crate", "extern", "in", "pub", "safe", "self", "super", "unsafe", "(", ")", ":"];
        words.contains(&token) || token.ends_with('"')
    }

    /// The attributes that stand one after the other before the token `end`, the first first: what is between `#[` and `]`.
    fn attributes_before(&self, mut end: usize) -> Vec<Range<usize>> {
        let mut attributes = Vec::new();
        while let Some(close) = end.checked_sub(1).filter(|close| self.token(*close) == "]") {
            let Some(open) = self.opening(close).filter(|open| *open > 0 && self.token(open - 1) == "#") else { break };
            attributes.push(open + 1..close);
            end = open - 1;
        }
        attributes.reverse();
        attributes
    }

    /// The attributes that stand one after the other from the token `start` on.
    fn attributes_from(&self, mut start: usize) -> Vec<Range<usize>> {
        let mut attributes = Vec::new();
        while self.token(start) == "#" && self.token(start + 1) == "[" {
            let Some(close) = self.closing(start + 1) else { break };
            attributes.push(start + 2..close);
            start = close + 1;
        }
        attributes
    }

    /// The bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (open..self.tokens.len()).find(|index| {
            match self.token(*index) {
                "[" => depth += 1,
                "]" => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// The bracket that the one at `close` closes.
    fn opening(&self, close: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (0..=close).rev().find(|index| {
            match self.token(*index) {
                "]" => depth += 1,
                "[" => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// The first and the last name of an attribute's path.
    fn names(&self, attribute: &Range<usize>) -> [&str; 2] {
        let is_path = |index: &usize| self.token(*index) == ":" || self.token(*index).starts_with(is_in_name);
        let mut names =
            attribute.clone().take_while(is_path).map(|index| self.token(index)).filter(|name| *name != ":");
        let first = names.next().unwrap_or_default();
        [first, names.last().unwrap_or(first)].map(|name| name.trim_start_matches("r#"))
    }

    /// The last one.
    fn name(&self, attribute: &Range<usize>) -> &str {
        let [_, last] = self.names(attribute);
        last
    }

    fn has_ours(&self, attribute: &Range<usize>) -> bool {
        match self.name(attribute) {
            "cfg_attr" => self.arguments(attribute).iter().skip(1).any(|argument| self.has_ours(argument)),
            name => name == "isolated",
        }
    }

    /// What stands in the parentheses of an attribute, cut at the commas.
    fn arguments(&self, attribute: &Range<usize>) -> Vec<Range<usize>> {
        let inner = attribute.start + 2..attribute.end.saturating_sub(1);
        let (mut depth, mut start, mut arguments) = (0_usize, inner.start, Vec::new());
        for index in inner.clone() {
            match self.token(index) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    arguments.push(start..index);
                    start = index + 1;
                }
                _ => {}
            }
        }
        arguments.push(start..inner.end);
        arguments.retain(|argument| !argument.is_empty());
        arguments
    }

    fn collect(&self, attributes: &[Range<usize>]) -> Above {
        let mut above = Above::default();
        for attribute in attributes {
            self.add(attribute, &[], &mut above);
        }
        above
    }

    /// Adds an attribute that is there if all `conditions` hold.
    fn add(&self, attribute: &Range<usize>, conditions: &[&str], above: &mut Above) {
        let [first, name] = self.names(attribute);
        if name == "cfg_attr" {
            let arguments = self.arguments(attribute);
            let Some((condition, attributes)) = arguments.split_first() else { return };
            let conditions = [conditions, &[self.text(condition)]].concat();
            attributes.iter().for_each(|attribute| self.add(attribute, &conditions, above));
            return;
        }
        let condition = match conditions {
            [] => String::new(),
            [one] => (*one).to_owned(),
            several => format!("all({})", several.join(", ")),
        };
        if is_maker(first, name) {
            let read = TokenStream::from_str(&condition);
            // What can't be read is taken for what is not there.
            above.makers.extend(read.ok().map(|condition| (!condition.is_empty()).then_some(condition)));
        }
        above.has_file_lock |= is_file_lock(first, name);
        if is_lock(name) {
            let text = self.text(attribute);
            let text = if condition.is_empty() { text.to_owned() } else { format!("cfg_attr({condition}, {text})") };
            above.locks.extend(TokenStream::from_str(&text));
        }
    }

    /// The text of some tokens.
    fn text(&self, tokens: &Range<usize>) -> &str {
        let (first, last) = (self.tokens.get(tokens.start), self.tokens.get(tokens.end.saturating_sub(1)));
        first.zip(last).and_then(|(first, last)| self.text.get(first.start..last.end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is above `#[isolated]`, makers and locks. Both ways to look must agree.
    fn above(text: &str) -> [Vec<String>; 2] {
        let source = Source::new(text.to_owned());
        let plain = |tokens: &TokenStream| tokens.to_string().replace(' ', "");
        let condition = |condition: &Condition| condition.as_ref().map_or("always".to_owned(), plain);
        let told =
            |above: Above| [above.makers.iter().map(condition).collect(), above.locks.iter().map(plain).collect()];
        let name = text.find("name").expect("a function");
        let by_name = told(source.above_function(name, "name").expect("ours"));
        if let Some(offset) = text.find("#[isolated").or(text.find("#[belljar::isolated")) {
            assert_eq!(told(source.above_attribute(offset).expect("ours")), by_name, "{text}");
        }
        by_name
    }

    #[test]
    fn makers_are_found() {
        for (text, conditions) in [
            ("#[test] #[isolated] fn name() {}", &["always"][..]),
            ("#[isolated] #[test] fn name() {}", &[]),
            ("#[test] fn other() {} #[isolated] fn name() {}", &[]),
            (
                "#[::core::prelude::v1::test]\n/// Doc ]\n#[belljar::isolated(net)]\npub(crate) async fn name() {}",
                &["always"],
            ),
            (
                "#[test_case(']', \"]\", r#\"]\"#)] #[allow(a)] #[isolated] unsafe extern \"C\" fn name() {}",
                &["always"],
            ),
            ("// #[test]\n#[isolated] fn name() {}", &[]),
            ("/* /* */ #[test] */ #[isolated] fn name() {}", &[]),
            ("const A: &str = \"#[test]\"; #[isolated] fn name() {}", &[]),
            ("#![test] #[isolated] fn name() {}", &[]),
            ("#[cfg_attr(unix, test)] #[isolated] fn name() {}", &["unix"]),
            ("#[cfg_attr(unix, cfg_attr(not(x), allow(b), test))] #[isolated] fn name() {}", &["all(unix,not(x))"]),
            ("#[rstest] #[case(1)] #[case(2)] #[isolated] fn name() {}", &["always"]),
            ("#[cfg_attr(unix, test, isolated)] fn name() {}", &["always"]),
            ("#[cfg_attr(unix, cfg_attr(x, test, isolated, allow(a)))] fn name() {}", &["always"]),
            ("#[cfg_attr(unix, cfg_attr(y, test), cfg_attr(x, a, isolated), test)] fn name() {}", &["y"]),
            ("#[r#test] #[r#isolated] fn name() {}", &["always"]),
            ("#[parameterized(a = {1})] #[quickcheck_macros::quickcheck] #[isolated] fn name() {}", &["always"; 2]),
            (
                "#[test_with::env(A)] #[cfg_attr(unix, test_with::path(/))] #[isolated] fn name() {}",
                &["always", "unix"],
            ),
            ("#[env(A)] #[test_with::lock(a)] #[isolated] fn name() {}", &[]),
            ("#[cfg_attr(unix, isolated, test)] fn name() {}", &[]),
            ("#[test] #[cfg_attr(unix, isolated(net))] fn name() {}", &["always"]),
            ("fn a<'a>(x: &'a u8) -> char { '\\'' } #[tokio::test] #[isolated] fn name() {}", &["always"]),
            ("const A: u8 = b'\\''; const B: &[u8] = br\"\\\"; #[isolated] fn name() {}", &[]),
        ] {
            assert_eq!(above(text)[0], conditions, "{text}");
        }
    }

    #[test]
    fn locks_are_found() {
        let text = "#[serial(a, b)] #[cfg_attr(unix, serial_test::parallel)] #[isolated] fn name() {}";
        assert_eq!(above(text)[1], ["serial(a,b)", "cfg_attr(unix,serial_test::parallel)"]);
        for (text, has_file_lock) in [
            ("#[file_serial] #[isolated] fn name() {}", true),
            ("#[test_with::lock(a)] #[isolated] fn name() {}", true),
            ("#[lock(a)] #[test_with::env(A)] #[isolated] fn name() {}", false),
        ] {
            let source = Source::new(text.to_owned());
            let above = source.above_attribute(text.find("#[isolated").expect("ours")).expect("ours");
            assert_eq!(above.has_file_lock, has_file_lock, "{text}");
        }
    }

    #[test]
    fn ours_may_be_for_one_case() {
        for (text, is_for_one) in [
            ("#[rstest] #[isolated] #[case(1)] #[case(2)] fn name() {}", true),
            ("#[rstest] #[case(1)] #[isolated(net)] /// ]\n #[case::two([2])] fn name() {}", true),
            ("#[cfg_attr(unix, rstest)] #[isolated] #[allow(a)] #[case(1)] #[case(2)] fn name() {}", true),
            ("#[rstest] #[case(1)] #[case(2)] #[isolated] fn name(#[case] a: u8) {}", false),
            ("#[isolated] #[rstest] #[case(1)] #[case(2)] fn name() {}", false),
            ("#[rstest] #[isolated] #[case(1)] fn name() {}", false),
            ("#[apply(a)] #[isolated] #[case(1)] fn name() {}", true),
            ("#[apply(a)] #[case(1)] #[isolated] fn name() {}", false),
            ("#[rstest] #[case(1)] #[isolated] fn name() {} #[rstest] #[case(1)] fn other() {}", false),
        ] {
            let source = Source::new(text.to_owned());
            let above = source.above_attribute(text.find("#[isolated").expect("ours")).expect("ours");
            assert_eq!(above.is_for_one_case, is_for_one, "{text}");
        }
    }

    #[test]
    fn ours_may_be_for_some_cases() {
        for (text, lacks_some) in [
            ("#[test_case(1)] #[test_case(2)] #[isolated] fn name() {}", true),
            ("#[test_case(1)] #[isolated] #[a] #[ntest::test_case(2)] fn name() {}", true),
            ("#[isolated] #[test_case(1)] fn name() {}", true),
            ("#[test_case(1)] #[a] #[isolated] #[test_case(2)] #[isolated(net)] fn name() {}", false),
            ("#[test_case(1)] #[isolated] fn name() {}", false),
            ("#[test] #[isolated] fn name() {}", false),
        ] {
            let source = Source::new(text.to_owned());
            let above = source.above_attribute(text.find("#[isolated").expect("ours")).expect("ours");
            assert_eq!(above.lacks_some_cases, lacks_some, "{text}");
        }
    }

    #[test]
    fn what_macros_repeat_is_not_ours() {
        let text = "$(#[$meta])* #[isolated] fn $name() {}";
        let source = Source::new(text.to_owned());
        assert!(source.above_attribute(2).is_none());
        assert!(source.above_attribute(13).is_some_and(|above| above.makers.is_empty()));
        assert!(source.above_function(30, "name").is_none());
    }

    #[test]
    fn places_are_found() {
        let source = Source::new("\u{feff}ä b\r\nc\u{1F980} d\n".to_owned());
        let at = |line, column| source.offset(line, column).and_then(|offset| source.text[offset..].chars().next());
        assert_eq!([at(1, 0), at(1, 2), at(2, 0), at(2, 3)], [Some('ä'), Some('b'), Some('c'), Some('d')]);
        assert_eq!([at(0, 0), at(3, 0), at(2, 9)], [None; 3]);
    }
}
