//! Draws what a terminal has shown, which it reads from standard input, as an SVG: text, and its colours by SGR sequences, see console_codes(4).

use std::fmt::Write as _;
use std::io::{self, Read as _};

/// In units of the picture.
const LINE: usize = 20;
const CHARACTER: f64 = 8.43;
const MARGIN: usize = 18;
const BAR: usize = 30;

/// The colour of text by the number that SGR has for it.
fn colour(number: &str) -> Option<&'static str> {
    match number {
        "31" | "91" => Some("#ff7b72"),
        "32" | "92" => Some("#7ee787"),
        "33" | "93" => Some("#e3b341"),
        "34" | "94" => Some("#79c0ff"),
        "36" | "96" => Some("#76e3ea"),
        "2" | "90" => Some("#8b949e"),
        _ => None,
    }
}

/// What is set from one sequence to the next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    colour: Option<&'static str>,
    is_bold: bool,
}

impl Style {
    /// After `\x1b[`, and before `m`.
    fn after(self, sequence: &str) -> Self {
        sequence.split(';').fold(self, |style, number| match number {
            "" | "0" => Self::default(),
            "1" => Self { is_bold: true, ..style },
            "39" => Self { colour: None, ..style },
            number => Self { colour: colour(number).or(style.colour), ..style },
        })
    }
}

/// The parts of one line, and the style that the next begins with.
fn parts(line: &str, mut style: Style) -> (Vec<(Style, &str)>, Style) {
    let mut parts = Vec::new();
    let mut pieces = line.split("\x1b[");
    parts.extend(pieces.next().map(|text| (style, text)));
    for piece in pieces {
        let (sequence, text) = piece.split_once('m').unwrap_or(("", piece));
        style = style.after(sequence);
        parts.push((style, text));
    }
    parts.retain(|(_, text)| !text.is_empty());
    (parts, style)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The `<text>` of one line: each part stands where the terminal has it, whatever font there is.
fn drawn(parts: &[(Style, &str)], y: usize) -> String {
    let mut text = format!("<text y=\"{y}\">");
    let mut column = 0;
    for (Style { colour, is_bold }, part) in parts {
        // A renderer may drop spaces in front.
        let (shown, width) = (part.trim_start(), part.chars().count());
        let (start, shown_width) = (column + width - shown.chars().count(), shown.chars().count());
        let x = MARGIN as f64 + start as f64 * CHARACTER;
        let (length, fill) = (shown_width as f64 * CHARACTER, colour.map(|fill| format!(" fill=\"{fill}\"")));
        let bold = if *is_bold { " font-weight=\"bold\"" } else { "" };
        let _ = write!(
            text,
            "<tspan x=\"{x:.1}\" textLength=\"{length:.1}\"{}{bold}>{}</tspan>",
            fill.unwrap_or_default(),
            escaped(shown)
        );
        column += width;
    }
    text + "</text>\n"
}

fn picture(shown: &str) -> String {
    let mut style = Style::default();
    let mut lines = Vec::new();
    for line in shown.trim_end().lines() {
        let (parts, next) = parts(line, style);
        style = next;
        lines.push(parts);
    }
    let columns = lines.iter().map(|parts| parts.iter().map(|(_, text)| text.chars().count()).sum()).max();
    let width = columns.unwrap_or(0_usize) as f64 * CHARACTER + 2.0 * MARGIN as f64;
    let height = BAR + lines.len() * LINE + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" width=\"{width:.0}\" height=\"{height}\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" font-size=\"14\" fill=\"#e6edf3\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    for (index, fill) in ["#ff5f56", "#ffbd2e", "#27c93f"].into_iter().enumerate() {
        let _ = writeln!(svg, "<circle cx=\"{}\" cy=\"16\" r=\"5\" fill=\"{fill}\"/>", MARGIN + 4 + index * 18);
    }
    for (index, parts) in lines.iter().enumerate().filter(|(_, parts)| !parts.is_empty()) {
        svg += &drawn(parts, BAR + (index + 1) * LINE);
    }
    svg + "</svg>\n"
}

fn main() -> io::Result<()> {
    let mut shown = String::new();
    io::stdin().read_to_string(&mut shown)?;
    print!("{}", picture(&shown));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_parts_of_lines() {
        let (parts, style) = parts("a \x1b[1;32mok\x1b[0m <b>\x1b[31m", Style::default());
        let green = Style { colour: colour("32"), is_bold: true };
        assert_eq!(parts.len(), 3);
        assert!(parts[1] == (green, "ok") && parts[2] == (Style::default(), " <b>"));
        assert!(style.colour == colour("31"));
        assert!(drawn(&parts, 1).ends_with("> &lt;b&gt;</tspan></text>\n"));
    }
}
