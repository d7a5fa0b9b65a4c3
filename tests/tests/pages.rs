//! The pages of the repository lead nowhere: each file and each heading that they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders whose files the pages name by paths that begin at the repository.
const FOLDERS: [&str; 6] = [".ci/", "docs/", "examples/", "macros/", "runtime/", "tests/"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

fn pages() -> Vec<PathBuf> {
    let folders = [repository().to_path_buf(), repository().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder of pages").flatten());
    files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
}

/// What stands between each `open` and the next `close`.
fn between<'t>(text: &'t str, open: &'static str, close: &'static str) -> impl Iterator<Item = &'t str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close)).map(|(found, _)| found)
}

/// The anchors of the headings, as they are made of the words.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |char: char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    headings
        .map(|line| line.to_lowercase().chars().filter(|char| kept(*char)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// What the page names that is not there.
fn lacking(page: &Path, text: &str) -> Vec<String> {
    let mut lacking = Vec::new();
    for link in between(text, "](", ")").filter(|link| !link.contains("://")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let file = if file.is_empty() { page.to_path_buf() } else { page.with_file_name(file) };
        let linked = fs::read_to_string(&file).ok();
        if !file.exists() || !anchor.is_empty() && !linked.is_some_and(|text| anchors(&text).contains(anchor)) {
            lacking.push(link.to_owned());
        }
    }
    let codes = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).chain(between(text, "\n$ ", "\n"));
    for path in codes.filter_map(|code| code.split(' ').next()) {
        if FOLDERS.iter().any(|folder| path.starts_with(folder)) && !repository().join(path).exists() {
            lacking.push(path.to_owned());
        }
    }
    lacking
}

#[test]
fn what_pages_name_is_there() {
    let pages = pages();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        assert_eq!(lacking(&page, &text), [""; 0], "{}", page.display());
    }
}

/// The twin.
#[test]
fn what_is_not_there_is_found() {
    let text = "[one](ONE.md), [two](README.md#no-such-heading), [here](README.md#what-else)\n`tests/no.rs` and `tests/tests/pages.rs`\n$ .ci/no all\n";
    assert_eq!(
        lacking(&repository().join("README.md"), text),
        ["ONE.md", "README.md#no-such-heading", "tests/no.rs", ".ci/no"]
    );
}

/// Pages of the book that are not in its table of contents.
fn unlisted<'p>(contents: &str, pages: impl IntoIterator<Item = &'p str>) -> Vec<&'p str> {
    pages.into_iter().filter(|page| !contents.contains(&format!("]({page})"))).collect()
}

#[test]
fn all_pages_are_in_the_table_of_contents() {
    let contents = fs::read_to_string(repository().join("docs/SUMMARY.md")).expect("the table of contents");
    let pages = pages();
    let names = pages.iter().filter(|page| page.parent().is_some_and(|folder| folder.ends_with("docs")));
    let names: Vec<_> =
        names.filter_map(|page| page.file_name()?.to_str()).filter(|name| *name != "SUMMARY.md").collect();
    assert_eq!(unlisted(&contents, names), [""; 0]);
    // The twin.
    assert_eq!(unlisted("- [One](one.md)", ["one.md", "two.md"]), ["two.md"]);
}

/// The pieces of Rust on a page that are not, line for line, in a file of examples.
fn pieces_that_are_elsewhere<'p>(page: &'p str, examples: &str) -> Vec<&'p str> {
    between(page, "```rust", "```")
        .map(|piece| piece.split_once('\n').map_or(piece, |(_, code)| code))
        .filter(|piece| !examples.contains(piece))
        .collect()
}

/// All Rust on pages is in `examples`, and so it is compiled and run.
#[test]
fn the_rust_of_pages_is_compiled() {
    let examples = repository().join("examples");
    let folders = [examples.join("book"), examples];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder of examples").flatten());
    let files = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let code: String = files.map(|path| fs::read_to_string(path).expect("a file of examples")).collect();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        assert_eq!(pieces_that_are_elsewhere(&text, &code), [""; 0], "{}", page.display());
    }
    // The twin.
    assert_eq!(pieces_that_are_elsewhere("```rust\nlet a = 1;\n```", &code), ["let a = 1;\n"]);
    assert_eq!(pieces_that_are_elsewhere("```rust,ignore\nlet a = 1;\n```", &code), ["let a = 1;\n"]);
}

/// The page that crates.io shows is README.md, with other links.
#[test]
fn the_page_of_the_package_is_up_to_date() {
    let checked = Command::new(repository().join(".ci/readme")).arg("--check").output().expect("bash");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()));
    let text = fs::read_to_string(repository().join("runtime/README.md")).expect("the page");
    let links = between(&text, "](", ")").filter(|link| !link.contains("://"));
    assert_eq!(links.collect::<Vec<_>>(), [""; 0]);
}
