//! Reads the arguments of `#[isolated(...)]`.
//!
//! Each argument is read by itself, so that one bad argument hides no other: all errors are reported at once, each
//! on the token that caused it. What a value may be, [values] says.

mod merge;
mod near;
#[cfg(test)]
mod tests;
mod values;

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Expr, ExprArray, ExprLit, Lit, LitStr, Path, Token};

pub(crate) use merge::{merge, with_words};
use near::nearest;
use values::{
    User, bind, cpu, expected, hostname, integer, literal, memory, offset, pids, root, string, timeout, uids,
    unsupported, user, variable, without_groups, without_suffix,
};

/// The words that stand alone, in the order in which errors list them.
const WORDS: [&str; 8] = ["net", "mount", "user", "pid", "ipc", "uts", "cgroup", "time"];

/// All options, each with an example.
const KEYS: [(&str, &str); 17] = [
    ("timeout", "timeout = \"5s\""),
    ("memory", "memory = \"64MiB\""),
    ("pids", "pids = 32"),
    ("cpu", "cpu = 0.5"),
    ("root", "root = \"overlay\""),
    ("from", "from = path::to::preparation"),
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
    /// The preparation that it starts from.
    pub(crate) from: Option<Path>,
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
    /// An image, as the argument names it.
    Image(String),
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
        reader.check_from();
        let everything = reader.words.is_empty();
        let mount = everything || reader.has("mount") || reader.from.is_some();
        if let (Some((_, span)), false) = (reader.tmpfs, mount) {
            let hint = "`tmpfs` limits the test's own root, and without `mount` there is none: write `mount` too";
            reader.add(Error::new(span, hint));
        }
        if let (Some((_, span)), false) = (&reader.root, mount) {
            let hint =
                "`root` says what the test's own root holds, and without `mount` there is none: write `mount` too";
            let error = Error::new(*span, hint);
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
            from: reader.from,
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
    /// The value, and its place for errors.
    root: Option<(Root, Span)>,
    from: Option<Path>,
    /// What makes the root, and where it stands.
    of_root: Vec<(String, Span)>,
    /// The value, and its place for errors.
    tmpfs: Option<(u64, Span)>,
    hostname: Option<String>,
    user: Option<User>,
    /// The value, and its place for errors.
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

    /// What makes the root can't be written beside `from`.
    fn check_from(&mut self) {
        if self.from.is_none() {
            return;
        }
        for (name, span) in std::mem::take(&mut self.of_root) {
            let text = format!("with `from`, the preparation says what makes the root: write `{name}` there");
            self.add(Error::new(span, text));
        }
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
            if text == "mount" {
                self.of_root.push((text.clone(), name.span()));
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
            "from" => self.from = Some(path(input, example)?),
            "unsupported" => self.skip_unsupported = unsupported(&string(input, example)?)?,
            "crate" => self.krate = Some(path(input, example)?),
            _ => unreachable!("each of `KEYS` is read above"),
        }
        let is_host = text == "user" && self.user == Some(User::Host);
        if is_host || ["root", "uids", "bind", "tmpfs"].contains(&text.as_str()) {
            let written = if is_host { "user = \"host\"" } else { &text };
            self.of_root.push((written.to_owned(), name.span()));
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

/// Reads a path, such as that of a function.
fn path(input: ParseStream<'_>, example: &str) -> syn::Result<Path> {
    input.call(Path::parse_mod_style).map_err(expected("a path", example))
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

/// An argument begins with something else than a name, such as a string.
fn no_name(input: ParseStream<'_>) -> Error {
    let span = input.span();
    let example = match input.parse::<LitStr>().map(|string| string.value()) {
        Ok(text) if text.parse().is_ok_and(|tokens| Args::parse(tokens).1.is_none()) => text,
        _ => "net, timeout = \"5s\"".to_owned(),
    };
    Error::new(span, format!("expected a word or an option: write `#[isolated({example})]`\n\n{}", valid_arguments()))
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
