//! Reads the arguments of `#[isolated(...)]`.
//!
//! Each argument is read by itself, so that one bad argument hides no other: all errors are reported at once, each
//! on the token that caused it.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use bytesize::ByteSize;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Expr, ExprArray, ExprLit, Lit, LitInt, LitStr, Path, Token};

/// The words that stand alone, in the order in which errors list them.
const WORDS: [&str; 8] = ["net", "mount", "user", "pid", "ipc", "uts", "cgroup", "time"];

/// The keys that take a value, each with an example.
const KEYS: [(&str, &str); 16] = [
    ("timeout", "timeout = \"5s\""),
    ("memory", "memory = \"64MiB\""),
    ("pids", "pids = 32"),
    ("cpu", "cpu = 0.5"),
    ("root", "root = \"overlay\""),
    ("tmpfs", "tmpfs = \"256MiB\""),
    ("hostname", "hostname = \"web1\""),
    ("user", "user = 1000"),
    ("uids", "uids = 65536"),
    ("bind", "bind = [\"/src:/dst:rw\"]"),
    ("env", "env = [\"NAME=value\"]"),
    ("clear_env", "clear_env"),
    ("boottime", "boottime = \"30d\""),
    ("monotonic", "monotonic = \"1h\""),
    ("unsupported", "unsupported = \"skip\""),
    ("crate", "crate = path::to::belljar"),
];

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

/// What stands in the parentheses, or stands for it when nothing does.
pub(crate) struct Args {
    /// Whether the test has a network of its own.
    pub(crate) net: bool,
    /// Whether the test has a file system tree of its own.
    pub(crate) mount: bool,
    /// How long the body may take.
    pub(crate) timeout: Option<Duration>,
    /// The most memory, in bytes.
    pub(crate) memory: Option<u64>,
    /// The most processes and threads.
    pub(crate) pids: Option<u32>,
    /// The most CPU time, in thousandths of a core.
    pub(crate) cpu: Option<u32>,
    /// What the root consists of.
    pub(crate) root: Root,
    /// The most that the root's tmpfs holds, in bytes.
    pub(crate) tmpfs: Option<u64>,
    /// The host name inside.
    pub(crate) hostname: Option<String>,
    /// Who the test is inside: a user and a group.
    pub(crate) user: Option<(u32, u32)>,
    /// Which users and groups there are inside.
    pub(crate) ids: Ids,
    /// How much later it is inside, by the clocks `monotonic` and `boottime`, if the test has clocks of its own.
    pub(crate) time: Option<[Duration; 2]>,
    /// What of the host is shown besides.
    pub(crate) binds: Vec<Bind>,
    /// Environment variables that are set.
    pub(crate) env: Vec<(String, String)>,
    /// Whether all others are removed.
    pub(crate) clear_env: bool,
    /// Whether the test is skipped where the host can't make its sandbox.
    pub(crate) skip_unsupported: bool,
    /// Where belljar is to be found.
    pub(crate) krate: Path,
}

/// What the root of a sandbox consists of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Root {
    #[default]
    Tmpfs,
    /// The host's tree, copy-on-write.
    Overlay,
    /// A directory, copy-on-write. It may be relative to the package.
    Directory(String),
}

/// The users and groups in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Root alone.
    One,
    /// So many, from 0 on.
    Range(u32),
    /// The host's.
    Host,
}

/// Who the value of `user` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// A user and a group.
    Inside(u32, u32),
    /// Real root.
    Host,
}

/// A path of the host that is shown inside.
pub(crate) struct Bind {
    /// It may be relative to the package.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) writable: bool,
}

impl Args {
    /// Reads `tokens`. The arguments that could be read are returned in any case, with what was wrong of the others.
    pub(crate) fn parse(tokens: TokenStream) -> (Self, Option<Error>) {
        let mut reader = Reader::default();
        for argument in split_at_commas(tokens) {
            let span = argument.span;
            let read = |input: ParseStream<'_>| reader.argument(input, span);
            if let Err(error) = read.parse2(argument.tokens) {
                reader.add(error);
            }
        }
        let everything = reader.words.is_empty();
        let mount = everything || reader.has("mount");
        if let (Some((_, span)), false) = (reader.tmpfs, mount) {
            reader.add(Error::new(span, "`tmpfs` is the size of the root that `mount` makes: write `mount` too"));
        }
        if let (Some((_, span)), false) = (&reader.root, mount) {
            let error = Error::new(*span, "`root` is what the root consists of that `mount` makes: write `mount` too");
            reader.add(error);
        }
        let ids = reader.ids();
        if let (None, Some(name)) = (&reader.krate, other_name(env::args_os())) {
            let hint = format!("belljar has the name `{name}` in this crate: write `crate = {name}`");
            reader.add(Error::new(Span::call_site(), hint));
        }
        let has_clocks = reader.has("time") || reader.monotonic.is_some() || reader.boottime.is_some();
        let args = Self {
            net: everything || reader.has("net"),
            mount,
            root: reader.root.map(|(root, _)| root).unwrap_or_default(),
            timeout: reader.timeout,
            memory: reader.memory,
            pids: reader.pids,
            cpu: reader.cpu,
            tmpfs: reader.tmpfs.map(|(bytes, _)| bytes),
            hostname: reader.hostname,
            user: match reader.user {
                Some(User::Inside(uid, gid)) => Some((uid, gid)),
                Some(User::Host) | None => None,
            },
            ids,
            time: has_clocks
                .then(|| [reader.monotonic, reader.boottime].map(|offset| offset.unwrap_or(Duration::ZERO))),
            binds: reader.binds,
            env: reader.env,
            clear_env: reader.clear_env,
            skip_unsupported: reader.skip_unsupported,
            krate: reader.krate.unwrap_or_else(|| syn::parse_quote!(::belljar)),
        };
        (args, reader.error)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    words: Vec<String>,
    keys: Vec<String>,
    timeout: Option<Duration>,
    memory: Option<u64>,
    pids: Option<u32>,
    cpu: Option<u32>,
    /// And where it stands.
    root: Option<(Root, Span)>,
    /// And where it stands.
    tmpfs: Option<(u64, Span)>,
    hostname: Option<String>,
    user: Option<User>,
    /// And where it stands.
    uids: Option<(u32, Span)>,
    monotonic: Option<Duration>,
    boottime: Option<Duration>,
    binds: Vec<Bind>,
    env: Vec<(String, String)>,
    clear_env: bool,
    skip_unsupported: bool,
    krate: Option<Path>,
    error: Option<Error>,
}

impl Reader {
    fn add(&mut self, error: Error) {
        match &mut self.error {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|seen| seen == word)
    }

    /// Which ids there are, by `user` and `uids` together.
    fn ids(&mut self) -> Ids {
        let Some((uids, span)) = self.uids else {
            return if self.user == Some(User::Host) { Ids::Host } else { Ids::One };
        };
        match self.user {
            Some(User::Host) => {
                self.add(Error::new(span, "with `user = \"host\"` all ids are the host's: remove `uids`"));
            }
            Some(User::Inside(uid, gid)) if uids > 1 && uid.max(gid) >= uids => {
                let text = format!("`user` is {uid}:{gid}, and of {uids} ids the last is {}: raise `uids`", uids - 1);
                self.add(Error::new(span, text));
            }
            _ => {}
        }
        if uids == 1 { Ids::One } else { Ids::Range(uids) }
    }

    /// Reads one argument: a word, or a key with its value.
    fn argument(&mut self, input: ParseStream<'_>, span: Span) -> syn::Result<()> {
        if input.is_empty() {
            return Err(Error::new(span, "expected an argument before this comma"));
        }
        let Ok(name) = input.call(Ident::parse_any) else {
            return Err(no_name(input));
        };
        let text = name.to_string();
        // `user` is a word, and with a value a key.
        if WORDS.contains(&text.as_str()) && !(text == "user" && input.peek(Token![=])) {
            if !input.is_empty() {
                return Err(input.error(format!("`{text}` stands alone: write `{text}`, then a comma")));
            }
            if self.has(&text) {
                return Err(twice(&name));
            }
            self.words.push(text);
            return Ok(());
        }
        let Some((_, example)) = KEYS.iter().find(|(key, _)| *key == text) else {
            let near = nearest(&text, names()).map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            let text = format!("unknown argument `{text}`{near}\n\n{}", valid_arguments());
            return Err(Error::new(name.span(), text));
        };
        if self.keys.contains(&text) {
            return Err(twice(&name));
        }
        if text == "clear_env" {
            if !input.is_empty() {
                return Err(input.error(format!("`{text}` stands alone: write `{text}`, then a comma")));
            }
            self.clear_env = true;
            self.keys.push(text);
            return Ok(());
        }
        if input.is_empty() {
            return Err(Error::new(name.span(), format!("`{text}` takes a value: write `{example}`")));
        }
        let Ok(equals) = input.parse::<Token![=]>() else {
            return Err(input.error(format!("expected a value: write `{example}`")));
        };
        if input.is_empty() {
            return Err(Error::new(equals.span, format!("expected a value: write `{example}`")));
        }
        match text.as_str() {
            "timeout" => self.timeout = Some(timeout(&string(input, example)?)?),
            "memory" => self.memory = Some(memory(&string(input, example)?)?),
            "pids" => self.pids = Some(pids(&integer(input, example)?)?),
            "cpu" => self.cpu = Some(cpu(&literal(input, "a number", example)?)?),
            "root" => self.root = Some((root(&string(input, example)?)?, name.span())),
            "tmpfs" => self.tmpfs = Some((memory(&string(input, example)?)?, name.span())),
            "hostname" => self.hostname = Some(hostname(&string(input, example)?)?),
            "user" => self.user = Some(user(&literal(input, "a number or a string", example)?)?),
            "uids" => self.uids = Some((uids(&integer(input, example)?)?, name.span())),
            "bind" => self.binds = self.list(input, example, bind, |bind| &bind.to)?,
            "env" => self.env = self.list(input, example, variable, |(name, _)| name)?,
            "boottime" => self.boottime = Some(offset(&string(input, example)?)?),
            "monotonic" => self.monotonic = Some(offset(&string(input, example)?)?),
            "unsupported" => self.skip_unsupported = unsupported(&string(input, example)?)?,
            _ => self.krate = Some(input.call(Path::parse_mod_style).map_err(expected("a path", example))?),
        }
        if !input.is_empty() {
            return Err(input.error(format!("expected a comma after the value of `{text}`")));
        }
        self.keys.push(text);
        Ok(())
    }
}

impl Reader {
    /// Reads a list of strings, each by itself, so that one bad value hides no other. No two may be about the same thing.
    fn list<T>(
        &mut self,
        input: ParseStream<'_>,
        example: &str,
        read: impl Fn(&LitStr) -> syn::Result<T>,
        about: impl Fn(&T) -> &str,
    ) -> syn::Result<Vec<T>> {
        let strings: ExprArray = input.parse().map_err(expected("a list of strings", example))?;
        let mut values: Vec<T> = Vec::new();
        for element in &strings.elems {
            let string = match without_groups(element) {
                Expr::Lit(ExprLit { lit: Lit::Str(string), .. }) => without_suffix(string.suffix(), string),
                other => Err(Error::new_spanned(other, format!("expected a string: write `{example}`"))),
            };
            match string.and_then(&read) {
                Ok(value) if values.iter().any(|other| about(other) == about(&value)) => {
                    let text = format!("`{}` is there twice: remove one", about(&value));
                    self.add(Error::new_spanned(element, text));
                }
                Ok(value) => values.push(value),
                Err(error) => self.add(error),
            }
        }
        Ok(values)
    }
}

/// The name that the crate which is compiled has for belljar, if it is another than `belljar`. The compiler's `arguments` tell.
fn other_name(arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let mut names = Vec::new();
    for argument in arguments {
        // `--extern NAME=PATH`, in one argument or in two. Options may stand before the name.
        let text = argument.to_string_lossy();
        let text = text.strip_prefix("--extern=").unwrap_or(&text);
        let Some((name, path)) = text.split_once('=') else { continue };
        let file = path.rsplit('/').next().unwrap_or_default();
        if file.starts_with("libbelljar-") || file.starts_with("libbelljar.") {
            names.extend(name.rsplit(':').next().map(str::to_owned));
        }
    }
    let is_usual = names.iter().any(|name| name == "belljar");
    names.into_iter().next().filter(|_| !is_usual)
}

fn twice(name: &Ident) -> Error {
    Error::new(name.span(), format!("`{name}` is written twice: remove one"))
}

/// All that can be written, below each other.
fn valid_arguments() -> String {
    let options = KEYS.chunks(4).map(|keys| keys.iter().map(|(_, example)| *example).collect::<Vec<_>>().join(", "));
    format!("words:   {}\noptions: {}", WORDS.join(", "), options.collect::<Vec<_>>().join(",\n         "))
}

/// The names of all arguments.
fn names() -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().chain(KEYS.iter().map(|(key, _)| *key))
}

/// `what` is no value here. If another is near, the error says that first, and the rule for all values below.
fn no_value(span: Span, what: &str, near: Option<String>, rule: &str) -> Error {
    let text = match near {
        Some(near) => format!("{what}: did you mean {near:?}?\n\n{rule}"),
        None => format!("{what}: {rule}"),
    };
    Error::new(span, text)
}

/// An argument begins with something else than a name, such as a string.
fn no_name(input: ParseStream<'_>) -> Error {
    let span = input.span();
    let example = match input.parse::<LitStr>().map(|string| string.value()) {
        Ok(text) if text.parse().is_ok_and(|tokens| Args::parse(tokens).1.is_none()) => text,
        _ => "net, timeout = \"5s\"".to_owned(),
    };
    Error::new(span, format!("expected a word or an option: write `#[isolated({example})]`\n\n{}", valid_arguments()))
}

/// The one of `names` that `text` may be meant for: it differs by few letters, or one of them begins with the other.
fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let far = usize::MAX;
    let rank = |name: &str| {
        let distance = distance(text, name);
        let is_near = distance <= (name.len() / 3).max(1);
        let is_prefix = text.len() > 2 && (text.starts_with(name) || name.starts_with(text));
        (is_near || is_prefix).then_some((if is_near { distance } else { far }, !is_prefix, distance))
    };
    let ranked = names.into_iter().filter_map(|name| rank(name).map(|rank| (rank, name)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, name)| name)
}

/// How many letters must be added, removed, replaced or swapped with the next one to come from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    // In row `i` and column `j`: the distance between the first `i` and the first `j` letters.
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for i in 0..=from.len() {
        let mut row: Vec<usize> = Vec::new();
        for j in 0..=to.len() {
            row.push(match (i.checked_sub(1), j.checked_sub(1)) {
                (None, _) => j,
                (_, None) => i,
                (Some(a), Some(b)) => {
                    let is_swap = a > 0 && b > 0 && from[a] == to[b - 1] && from[a - 1] == to[b];
                    let swapped = if is_swap { rows[a - 1][b - 1] } else { usize::MAX - 1 };
                    let added_or_removed = rows[a][j].min(row[b]);
                    let replaced = rows[a][b] + usize::from(from[a] != to[b]);
                    replaced.min(added_or_removed.min(swapped) + 1)
                }
            });
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}

/// The tokens of one argument, and a place to point at when there are none.
struct Argument {
    tokens: TokenStream,
    span: Span,
}

/// Splits `tokens` at its commas. A comma at the end begins no further argument.
fn split_at_commas(tokens: TokenStream) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut current = TokenStream::new();
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ',' => {
                let tokens = std::mem::take(&mut current);
                arguments.push(Argument { tokens, span: punct.span() });
            }
            other => current.extend([other]),
        }
    }
    if !current.is_empty() {
        arguments.push(Argument { tokens: current, span: Span::call_site() });
    }
    arguments
}

/// Reads a literal, also one that a macro was given.
fn literal(input: ParseStream<'_>, kind: &str, example: &str) -> syn::Result<Lit> {
    let literal: Lit = input.parse().map_err(expected(kind, example))?;
    without_suffix(literal.suffix(), &literal).cloned()
}

/// The literal, if it has no suffix.
fn without_suffix<'l, L: ToTokens>(suffix: &str, literal: &'l L) -> syn::Result<&'l L> {
    if suffix.is_empty() {
        return Ok(literal);
    }
    Err(Error::new_spanned(literal, format!("a value has no suffix: remove `{suffix}`")))
}

/// What a macro was given as an expression stands in a group that can't be seen.
fn without_groups(expression: &Expr) -> &Expr {
    match expression {
        Expr::Group(group) => without_groups(&group.expr),
        other => other,
    }
}

fn string(input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    match literal(input, "a string", example)? {
        Lit::Str(string) => Ok(string),
        other => Err(expected("a string", example)(Error::new(other.span(), ""))),
    }
}

fn integer(input: ParseStream<'_>, example: &str) -> syn::Result<LitInt> {
    match literal(input, "a whole number", example)? {
        Lit::Int(integer) => Ok(integer),
        other => Err(expected("a whole number", example)(Error::new(other.span(), ""))),
    }
}

/// Says what was expected where an error is.
fn expected(kind: &str, example: &str) -> impl FnOnce(Error) -> Error {
    let text = format!("expected {kind}: write `{example}`");
    |error| Error::new(error.span(), text)
}

fn duration(literal: &LitStr, examples: &str) -> syn::Result<Duration> {
    let text = literal.value();
    humantime::parse_duration(&text).map_err(|error| {
        Error::new(literal.span(), format!("`{text}` is no duration ({error}): write one like {examples}"))
    })
}

fn timeout(literal: &LitStr) -> syn::Result<Duration> {
    match duration(literal, "\"5s\", \"250ms\" or \"1m 30s\"")? {
        Duration::ZERO => Err(Error::new(literal.span(), "a timeout of zero leaves the test no time to run")),
        duration => Ok(duration),
    }
}

/// Reads how much later it is inside.
fn offset(literal: &LitStr) -> syn::Result<Duration> {
    let offset = duration(literal, "\"30d\", \"1h\" or \"250ms\"")?;
    if offset > Duration::from_secs(OFFSET_MAX) {
        let rule = "a clock is moved by a hundred years (36500d) at most";
        return Err(Error::new(literal.span(), format!("`{}` is too much: {rule}", literal.value())));
    }
    Ok(offset)
}

/// Whether a path is `/`, however it is written.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".")
}

/// Reads `tmpfs`, `overlay` or a path.
fn root(literal: &LitStr) -> syn::Result<Root> {
    let text = literal.value();
    match text.as_str() {
        "tmpfs" => Ok(Root::Tmpfs),
        "overlay" => Ok(Root::Overlay),
        path if (path.starts_with('/') || path.starts_with("./") || path.starts_with("../"))
            && !path.contains('\0') =>
        {
            if is_root(path) {
                return Err(Error::new(literal.span(), "`/` is the host's tree: write \"overlay\" for a copy of it"));
            }
            Ok(Root::Directory(text))
        }
        _ => {
            let rule = "write \"tmpfs\", \"overlay\", or the path of a directory that begins with `/` or `./`";
            let path = || (!text.is_empty()).then(|| format!("./{text}"));
            let near = nearest(&text, ["tmpfs", "overlay"]).map(str::to_owned).or_else(path);
            Err(no_value(literal.span(), &format!("`{text}` is no root"), near, rule))
        }
    }
}

/// Reads how many ids there are.
fn uids(literal: &LitInt) -> syn::Result<u32> {
    match literal.base10_parse() {
        Ok(uids @ 1..) => Ok(uids),
        _ => {
            let rule = "write a number from 1 to 4294967295";
            Err(Error::new(literal.span(), format!("`{literal}` is no number of ids: {rule}")))
        }
    }
}

/// Reads whether to skip a test or to have it fail.
fn unsupported(literal: &LitStr) -> syn::Result<bool> {
    match literal.value().as_str() {
        "skip" => Ok(true),
        "fail" => Ok(false),
        other => {
            let rule = "these say what becomes of the test where the host can't run it";
            let near = nearest(other, ["skip", "fail"]).map(str::to_owned);
            Err(no_value(literal.span(), &format!("`{other}` is neither \"skip\" nor \"fail\""), near, rule))
        }
    }
}

/// Reads `1000`, `"1000:100"` or `"host"`.
fn user(literal: &Lit) -> syn::Result<User> {
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
        no_value(literal.span(), &format!("`{text}` is no user"), near, rule)
    })
}

/// Reads `/src`, `/src:rw`, `/src:/dst` or `/src:/dst:rw`.
fn bind(literal: &LitStr) -> syn::Result<Bind> {
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
fn in_package(path: &str) -> String {
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
fn variable(literal: &LitStr) -> syn::Result<(String, String)> {
    let text = literal.value();
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::new(literal.span(), format!("`{text}` is no variable: write \"NAME=value\""))),
    }
}

fn memory(literal: &LitStr) -> syn::Result<u64> {
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

fn pids(literal: &LitInt) -> syn::Result<u32> {
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
fn cpu(literal: &Lit) -> syn::Result<u32> {
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

fn hostname(literal: &LitStr) -> syn::Result<String> {
    let name = literal.value();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    if name.is_empty() || name.len() > HOST_NAME_MAX || !name.bytes().all(letters) {
        let rule = format!("a host name has 1 to {HOST_NAME_MAX} letters, digits, `-`, `.` or `_`");
        return Err(Error::new(literal.span(), format!("`{name}` is no host name: {rule}")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn words(tokens: TokenStream) -> (bool, bool) {
        let (args, error) = Args::parse(tokens);
        assert!(error.is_none(), "{error:?}");
        (args.net, args.mount)
    }

    fn errors(tokens: TokenStream) -> Vec<String> {
        let (_, error) = Args::parse(tokens);
        error.into_iter().flatten().map(|error| error.to_string()).collect()
    }

    #[test]
    fn words_choose_what_is_replaced() {
        assert_eq!(words(quote!()), (true, true));
        assert_eq!(words(quote!(timeout = "1s", hostname = "a")), (true, true));
        assert_eq!(words(quote!(net, mount)), (true, true));
        assert_eq!(words(quote!(net)), (true, false));
        assert_eq!(words(quote!(mount, timeout = "1s",)), (false, true));
        assert_eq!(words(quote!(uts)), (false, false));
    }

    #[test]
    fn values_are_read() {
        let (args, error) = Args::parse(quote!(
            timeout = "1m 30s",
            hostname = "web-1.lan",
            crate = a::b,
            memory = "1.5 GiB",
            pids = 0x20,
            cpu = 1.25
        ));
        assert!(error.is_none());
        assert_eq!(args.memory, Some(3 << 29));
        assert_eq!(args.pids, Some(32));
        assert_eq!(args.cpu, Some(1250));
        assert_eq!(args.timeout, Some(Duration::from_secs(90)));
        assert_eq!(args.hostname.as_deref(), Some("web-1.lan"));
        assert_eq!(args.krate.to_token_stream().to_string(), "a :: b");
    }

    #[test]
    fn lists_are_read() {
        let (args, error) = Args::parse(quote!(
            bind = ["/a", "b:/c", "/d:/e:rw", "f:rw", "../g:ro"],
            env = ["A=", "B=c=d"],
            clear_env,
            monotonic = "1h"
        ));
        assert_eq!(Args::parse(quote!(user = "7:8")).0.user, Some((7, 8)));
        assert_eq!(Args::parse(quote!(user = 1000)).0.user, Some((1000, 1000)));
        assert!(words(quote!(user)) == (false, false) && Args::parse(quote!(user)).0.user.is_none());
        assert!(error.is_none(), "{error:?}");
        let binds: Vec<_> = args.binds.iter().map(|bind| (&*bind.from, &*bind.to, bind.writable)).collect();
        assert_eq!(
            binds,
            [("/a", "/a", false), ("b", "/c", false), ("/d", "/e", true), ("f", "f", true), ("../g", "../g", false)]
        );
        assert_eq!(args.env, [("A", ""), ("B", "c=d")].map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(args.clear_env && args.net && args.mount);
        assert_eq!(args.time, Some([Duration::from_secs(3600), Duration::ZERO]));
        assert_eq!(Args::parse(quote!(time)).0.time, Some([Duration::ZERO; 2]));
        assert_eq!(Args::parse(quote!(net)).0.time, None);
    }

    #[test]
    fn roots_and_ids_are_read() {
        let args = |tokens: TokenStream| {
            let (args, error) = Args::parse(tokens);
            assert!(error.is_none(), "{error:?}");
            args
        };
        assert_eq!(args(quote!()).root, Root::Tmpfs);
        assert_eq!(args(quote!(root = "overlay")).root, Root::Overlay);
        assert_eq!(args(quote!(mount, root = "./image")).root, Root::Directory("./image".to_owned()));
        assert_eq!(args(quote!(uids = 1)).ids, Ids::One);
        assert_eq!(args(quote!(uids = 65536, user = 65535)).ids, Ids::Range(65536));
        assert_eq!(args(quote!(user = "host")).ids, Ids::Host);
        assert_eq!(args(quote!(user = 7)).ids, Ids::One);
        for bad in [
            quote!(net, root = "overlay"),
            quote!(root = "image"),
            quote!(root = "//."),
            quote!(uids = 0),
            quote!(uids = 100, user = 100),
            quote!(uids = 100, user = "1:100"),
            quote!(uids = 100, user = "host"),
        ] {
            assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
        }
    }

    #[test]
    fn values_have_their_bounds() {
        for (good, bad) in [
            (quote!(memory = "1MiB"), quote!(memory = "1MB")),
            (quote!(memory = "1000000000"), quote!(memory = "much")),
            (quote!(memory = "2gib"), quote!(memory = "-2GiB")),
            (quote!(pids = 2), quote!(pids = 1)),
            (quote!(pids = 4_194_303), quote!(pids = 4_194_304)),
            (quote!(cpu = 0.01), quote!(cpu = 0.009)),
            (quote!(cpu = 1000), quote!(cpu = 1000.1)),
            (quote!(bind = ["a/.."]), quote!(bind = ["/a/.."])),
            (quote!(bind = [".."]), quote!(bind = ["../../../../../../../../../../../../../../../.."])),
            (quote!(bind = ["a:rw"]), quote!(bind = ["a:wr"])),
            (quote!(bind = ["a:/ro"]), quote!(bind = ["a:/b/../c"])),
        ] {
            assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
            assert!(errors(good.clone()).is_empty(), "{good}");
        }
    }

    #[test]
    fn what_is_near_is_found() {
        for (text, near) in [
            ("tiemout", Some("timeout")),
            ("time_out", Some("timeout")),
            ("nett", Some("net")),
            ("ent", Some("net")),
            ("network", Some("net")),
            ("moutn", Some("mount")),
            ("mounts", Some("mount")),
            ("mem", Some("memory")),
            ("uid", Some("uids")),
            ("cpus", Some("cpu")),
            ("binds", Some("bind")),
            ("clearenv", Some("clear_env")),
            ("boot_time", Some("boottime")),
            ("n", None),
            ("", None),
            ("frobnicate", None),
            ("capabilities", None),
        ] {
            assert_eq!(nearest(text, names()), near, "{text}");
        }
    }

    #[test]
    fn another_name_is_found() {
        let found = |arguments: &str| other_name(arguments.split(' ').map(OsString::from));
        assert_eq!(found("rustc --extern glass=/a/libbelljar-0.rlib --extern b=/b.rlib").as_deref(), Some("glass"));
        assert_eq!(found("rustc --extern=priv:glass=/a=b/libbelljar.rmeta").as_deref(), Some("glass"));
        assert_eq!(found("rustc --extern glass=/a/libbelljar-0.rlib --extern belljar=/a/libbelljar-0.rlib"), None);
        assert_eq!(found("rustc --extern glass=/a/libglass-0.rlib --extern m=/a/libbelljar_macros-0.so"), None);
        assert_eq!(found("rust-analyzer-proc-macro-srv"), None);
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let tokens = quote!(network, timeout = "5x", net = 1, net, net, hostname = "a b", timeout, , crate = 5);
        let errors = errors(tokens);
        assert_eq!(errors.len(), 8, "{errors:#?}");
        for (error, part) in errors.iter().zip([
            "unknown argument `network`",
            "`5x` is no duration",
            "`net` stands alone",
            "`net` is written twice",
            "`a b` is no host name",
            "`timeout` takes a value",
            "before this comma",
            "expected a path",
        ]) {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }
}
