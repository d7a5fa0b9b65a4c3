//! Cuts the text of a Rust file into tokens: how long the next one is. It has no errors: what is no Rust, the compiler says.

/// The length of what `text` begins with, and whether that is a token, and neither space nor comment.
pub(crate) fn next(text: &str) -> (usize, bool) {
    let rest_after = |count: usize| text.get(count..).unwrap_or_default();
    let up_to = |end: Option<usize>| end.unwrap_or(text.len());
    if text.starts_with("//") {
        return (up_to(text.find('\n')), false);
    }
    if text.starts_with("/*") {
        return (block_comment(text), false);
    }
    let name = up_to(text.find(|c| !is_in_name(c)));
    if name > 0 {
        let (prefix, rest) = text.split_at(name);
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let length = match (prefix, rest.chars().next()) {
            ("r" | "br" | "cr", Some('#' | '"')) if rest_after(name + hashes).starts_with('"') => {
                let (begin, end) = (name + hashes + 1, format!("\"{}", "#".repeat(hashes)));
                up_to(rest_after(begin).find(&end).map(|length| begin + length + end.len()))
            }
            ("r", Some('#')) => name + 1 + rest_after(name + 1).find(|c| !is_in_name(c)).unwrap_or_default(),
            ("b" | "c", Some('"')) | ("b", Some('\'')) => name + quoted(rest),
            _ => name,
        };
        return (length, true);
    }
    let mut chars = text.chars();
    let (first, second, third) = (chars.next(), chars.next(), chars.next());
    match first {
        Some(space) if space.is_whitespace() || space == '\u{feff}' => (space.len_utf8(), false),
        Some('"') => (quoted(text), true),
        Some('\'') if second == Some('\\') || third == Some('\'') => (quoted(text), true),
        // A lifetime.
        Some('\'') => (1 + rest_after(1).find(|c| !is_in_name(c)).unwrap_or_default(), true),
        other => (other.map_or(0, char::len_utf8), true),
    }
}

/// Whether a character may stand in a name.
pub(crate) fn is_in_name(char: char) -> bool {
    char == '_' || char.is_alphanumeric()
}

/// The length of the literal in quotation marks that `text` begins with.
fn quoted(text: &str) -> usize {
    let mark = text.chars().next();
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, char)| {
        let is_end = Some(*char) == mark && !is_escaped;
        is_escaped = *char == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(end, _)| end + 1)
}

/// The length of the comment that `text` begins with. Others may be nested in it.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut end) = (0_usize, 0);
    while let Some(rest) = text.get(end..).filter(|rest| !rest.is_empty()) {
        let (length, change) = match rest {
            rest if rest.starts_with("/*") => (2, 1),
            rest if rest.starts_with("*/") => (2, -1),
            rest => (rest.chars().next().map_or(1, char::len_utf8), 0),
        };
        depth = depth.saturating_add_signed(change);
        end += length;
        if depth == 0 {
            break;
        }
    }
    end
}
