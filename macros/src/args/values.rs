//! Reads the values of arguments: each from its literal, within its bounds.

use std::env;
use std::time::Duration;

use bytesize::ByteSize;
use quote::ToTokens;
use syn::parse::ParseStream;
use syn::{Error, Expr, Lit, LitInt, LitStr};

use super::near::{bad_value, nearest};
use super::{Bind, Root};

/// The longest host name that the kernel takes, in bytes (sethostname(2)).
const HOST_NAME_MAX: usize = 64;

/// The least memory that a sandbox does with, in bytes: its two processes take about half of it.
const MEMORY_MIN: u64 = 1 << 20;

/// The most memory that the kernel has a number for, in bytes. Sizes in tmpfs(5) and limits in cgroups(7) are signed.
const MEMORY_MAX: u64 = i64::MAX as u64;

/// The fewest processes and threads that a test does with: its own main thread, and that of the body.
const PIDS_MIN: u32 = 2;

/// One less than a Linux kernel can have (PID_MAX_LIMIT in its `threads.h`): the sandbox's init is one more.
const PIDS_MAX: u32 = (1 << 22) - 1;

/// Thousandths of a core. The kernel's least quota is 1 ms of every 100 ms, see cgroups(7) on `cpu.max`.
const CPU_MIN: u32 = 10;
const CPU_MAX: u32 = 1_000_000;

/// The farthest that a clock is moved, in seconds: a hundred years. The kernel's own limit is 146 years, the time since the
/// machine was started included, see time_namespaces(7).
const OFFSET_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Who the value of `user` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// A user and a group.
    Inside(u32, u32),
    /// Real root.
    Host,
}

/// Reads a literal, also one that a macro was given.
pub(super) fn literal(input: ParseStream<'_>, kind: &str, example: &str) -> syn::Result<Lit> {
    let literal: Lit = input.parse().map_err(expected(kind, example))?;
    without_suffix(literal.suffix(), &literal).cloned()
}

/// The literal, if it has no suffix.
pub(super) fn without_suffix<'l, L: ToTokens>(suffix: &str, literal: &'l L) -> syn::Result<&'l L> {
    if suffix.is_empty() {
        return Ok(literal);
    }
    Err(Error::new_spanned(literal, format!("a value has no suffix: remove `{suffix}`")))
}

/// What a macro was given as an expression stands in a group that can't be seen.
pub(super) fn without_groups(expression: &Expr) -> &Expr {
    match expression {
        Expr::Group(group) => without_groups(&group.expr),
        other => other,
    }
}

pub(super) fn string(input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    match literal(input, "a string", example)? {
        Lit::Str(string) => Ok(string),
        other => Err(expected("a string", example)(Error::new(other.span(), ""))),
    }
}

pub(super) fn integer(input: ParseStream<'_>, example: &str) -> syn::Result<LitInt> {
    match literal(input, "a whole number", example)? {
        Lit::Int(integer) => Ok(integer),
        other => Err(expected("a whole number", example)(Error::new(other.span(), ""))),
    }
}

/// Says what was expected where an error is.
pub(super) fn expected(kind: &str, example: &str) -> impl FnOnce(Error) -> Error {
    let text = format!("expected {kind}: write `{example}`");
    |error| Error::new(error.span(), text)
}

pub(super) fn duration(literal: &LitStr, examples: &str) -> syn::Result<Duration> {
    let text = literal.value();
    humantime::parse_duration(&text).map_err(|error| {
        Error::new(literal.span(), format!("`{text}` is no duration ({error}): write one like {examples}"))
    })
}

pub(super) fn timeout(literal: &LitStr) -> syn::Result<Duration> {
    match duration(literal, "\"5s\", \"250ms\" or \"1m 30s\"")? {
        Duration::ZERO => Err(Error::new(literal.span(), "a timeout of zero leaves the test no time to run")),
        duration => Ok(duration),
    }
}

/// Reads how much later it is inside.
pub(super) fn offset(literal: &LitStr) -> syn::Result<Duration> {
    let offset = duration(literal, "\"30d\", \"1h\" or \"250ms\"")?;
    if offset > Duration::from_secs(OFFSET_MAX) {
        let rule = "a clock is moved by a hundred years (36500d) at most";
        return Err(Error::new(literal.span(), format!("`{}` is too much: {rule}", literal.value())));
    }
    Ok(offset)
}

/// Whether a path is `/`, however it is written.
pub(super) fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".")
}

/// How the names of files end that are images.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"];

/// Whether this names an image: a layout of OCI, or an archive.
fn is_image(text: &str) -> bool {
    let is_archive = ARCHIVES.iter().any(|end| text.ends_with(end));
    !text.contains('\0') && (is_archive || text.strip_prefix("oci:").is_some_and(|layout| !layout.is_empty()))
}

/// Reads `tmpfs`, `overlay`, a path or an image.
pub(super) fn root(literal: &LitStr) -> syn::Result<Root> {
    let text = literal.value();
    match text.as_str() {
        "tmpfs" => Ok(Root::Tmpfs),
        "overlay" => Ok(Root::Overlay),
        image if is_image(image) => {
            if cfg!(feature = "images") {
                return Ok(Root::Image(text));
            }
            let hint = "an image as the root takes the feature `images` of belljar: run `cargo add --dev belljar --features images`";
            Err(Error::new(literal.span(), hint))
        }
        path if (path.starts_with('/') || path.starts_with("./") || path.starts_with("../"))
            && !path.contains('\0') =>
        {
            if is_root(path) {
                return Err(Error::new(literal.span(), "`/` is the host's tree: write \"overlay\" for a copy of it"));
            }
            Ok(Root::Directory(text))
        }
        _ => {
            let rule = "write \"tmpfs\", \"overlay\", the path of a directory that begins with `/` or `./`, or an image as \"oci:DIR\" or \"image.tar\"";
            let path = || (!text.is_empty() && !text.starts_with("oci:")).then(|| format!("./{text}"));
            let near = nearest(&text, ["tmpfs", "overlay"]).map(str::to_owned).or_else(path);
            Err(bad_value(literal.span(), &format!("`{text}` is no root"), near, rule))
        }
    }
}

/// Reads how many ids there are.
pub(super) fn uids(literal: &LitInt) -> syn::Result<u32> {
    match literal.base10_parse() {
        Ok(uids @ 1..) => Ok(uids),
        _ => {
            let rule = "write a number from 1 to 4294967295";
            Err(Error::new(literal.span(), format!("`{literal}` is no number of ids: {rule}")))
        }
    }
}

/// Reads whether to skip a test or to have it fail.
pub(super) fn unsupported(literal: &LitStr) -> syn::Result<bool> {
    match literal.value().as_str() {
        "skip" => Ok(true),
        "fail" => Ok(false),
        other => {
            let rule = "these say what becomes of the test where the host can't run it";
            let near = nearest(other, ["skip", "fail"]).map(str::to_owned);
            Err(bad_value(literal.span(), &format!("`{other}` is neither \"skip\" nor \"fail\""), near, rule))
        }
    }
}

/// Reads `1000`, `"1000:100"` or `"host"`.
pub(super) fn user(literal: &Lit) -> syn::Result<User> {
    // The last number is none, see setuid(2).
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let id = |text: &str| text.parse().ok().filter(|id| *id < u32::MAX && is_number(text));
    let ids = match literal {
        Lit::Int(literal) => literal.base10_parse().ok().filter(|id| *id < u32::MAX).map(|id| (id, id)),
        Lit::Str(text) if text.value() == "host" => return Ok(User::Host),
        Lit::Str(text) => {
            let text = text.value();
            let (uid, gid) = text.split_once(':').unwrap_or((&text, &text));
            id(uid).zip(id(gid))
        }
        _ => None,
    };
    ids.map(|(uid, gid)| User::Inside(uid, gid)).ok_or_else(|| {
        let text = literal.to_token_stream().to_string();
        let near = nearest(text.trim_matches('"'), ["host"]).map(str::to_owned);
        let rule =
            "write the number of a user, one of a user and one of a group, or `host`: `1000`, `\"1000:100\"` or `\"host\"`";
        bad_value(literal.span(), &format!("`{text}` is no user"), near, rule)
    })
}

/// Reads `/src`, `/src:rw`, `/src:/dst` or `/src:/dst:rw`.
pub(super) fn bind(literal: &LitStr) -> syn::Result<Bind> {
    let text = literal.value();
    let bad = |what: &str| {
        let rule = "write \"/src\", \"/src:rw\", \"/src:/dst\" or \"/src:/dst:rw\"";
        Err(Error::new(literal.span(), format!("`{text}` {what}: {rule}")))
    };
    let parts: Vec<_> = text.split(':').collect();
    let (from, to, access) = match parts[..] {
        [from] => (from, None, "ro"),
        [from, access @ ("ro" | "rw")] => (from, None, access),
        [from, to] => (from, Some(to), "ro"),
        [from, to, access] => (from, Some(to), access),
        _ => return bad("has too many colons"),
    };
    if from.is_empty() || to.is_some_and(str::is_empty) || text.contains('\0') {
        return bad("lacks a path");
    }
    if access != "ro" && access != "rw" {
        return bad(&format!("has neither `ro` nor `rw` in the third place, but `{access}`"));
    }
    if is_root(&in_package(from)) {
        return bad("names the root of the host, which the sandbox covers; name what is below it");
    }
    if to.is_some_and(|to| !to.starts_with('/')) {
        return bad("has a path inside the sandbox that does not begin with `/`");
    }
    if to.is_some_and(|to| to.split('/').any(|part| part == "..") || is_root(to)) {
        return bad("has a path inside the sandbox that is `/` or has `..` in it");
    }
    Ok(Bind { from: from.to_owned(), to: to.unwrap_or(from).to_owned(), writable: access == "rw" })
}

/// The absolute path that `path` stands for in the package that is compiled, with no `..` left in it.
pub(super) fn in_package(path: &str) -> String {
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let mut names = Vec::new();
    for name in package.split('/').filter(|_| !path.starts_with('/')).chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Reads an environment variable, as environ(7) has it.
pub(super) fn variable(literal: &LitStr) -> syn::Result<(String, String)> {
    let text = literal.value();
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::new(literal.span(), format!("`{text}` is no variable: write \"NAME=value\""))),
    }
}

pub(super) fn memory(literal: &LitStr) -> syn::Result<u64> {
    let text = literal.value();
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes < MEMORY_MIN => {
            let least = ByteSize(MEMORY_MIN);
            Err(Error::new(literal.span(), format!("`{text}` is too little for a sandbox: give it at least {least}")))
        }
        Ok(ByteSize(bytes)) if bytes > MEMORY_MAX => {
            Err(Error::new(literal.span(), format!("`{text}` is more than the kernel can count: give less than 8 EiB")))
        }
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err(Error::new(
            literal.span(),
            format!("`{text}` is no size in bytes: write one like \"64MiB\", \"1.5GiB\" or \"200MB\""),
        )),
    }
}

pub(super) fn pids(literal: &LitInt) -> syn::Result<u32> {
    match literal.base10_parse() {
        Ok(pids @ PIDS_MIN..=PIDS_MAX) => Ok(pids),
        _ => Err(Error::new(
            literal.span(),
            format!(
                "`{literal}` is no limit on processes and threads: write a number from {PIDS_MIN} (what the test itself \
                 takes) to {PIDS_MAX}"
            ),
        )),
    }
}

/// Reads a number of cores as thousandths of one.
pub(super) fn cpu(literal: &Lit) -> syn::Result<u32> {
    let cores: Option<f64> = match literal {
        Lit::Int(cores) => cores.base10_parse().ok(),
        Lit::Float(cores) => cores.base10_parse().ok(),
        _ => None,
    };
    match cores.map(|cores| (cores * 1000.0).round()) {
        Some(thousandths) if (f64::from(CPU_MIN)..=f64::from(CPU_MAX)).contains(&thousandths) => Ok(thousandths as u32),
        _ => Err(Error::new(
            literal.span(),
            format!(
                "`{}` is no number of cores: write one from {} to {}",
                literal.to_token_stream(),
                f64::from(CPU_MIN) / 1000.0,
                CPU_MAX / 1000
            ),
        )),
    }
}

pub(super) fn hostname(literal: &LitStr) -> syn::Result<String> {
    let name = literal.value();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    if name.is_empty() || name.len() > HOST_NAME_MAX || !name.bytes().all(letters) {
        let rule = format!("a host name has 1 to {HOST_NAME_MAX} letters, digits, `-`, `.` or `_`");
        return Err(Error::new(literal.span(), format!("`{name}` is no host name: {rule}")));
    }
    Ok(name)
}
