//! Reads the arguments of `#[isolated(...)]`.
//!
//! Each argument is read by itself, so that one bad argument hides no other: all errors are reported at once, each
//! on the token that caused it.

use std::time::Duration;

use bytesize::ByteSize;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Lit, LitInt, LitStr, Path, Token};

/// The words that stand alone, in the order in which errors list them.
const WORDS: [&str; 7] = ["net", "mount", "user", "pid", "ipc", "uts", "cgroup"];

/// The keys that take a value, each with an example.
const KEYS: [(&str, &str); 7] = [
    ("timeout", "timeout = \"5s\""),
    ("memory", "memory = \"64MiB\""),
    ("pids", "pids = 32"),
    ("cpu", "cpu = 0.5"),
    ("tmpfs", "tmpfs = \"256MiB\""),
    ("hostname", "hostname = \"web1\""),
    ("crate", "crate = path::to::belljar"),
];

/// The longest host name that the kernel takes, in bytes (sethostname(2)).
const HOST_NAME_MAX: usize = 64;

/// The least memory that a sandbox does with, in bytes: its two processes take about half of it.
const MEMORY_MIN: u64 = 1 << 20;

/// The fewest processes and threads that a test does with: its own main thread, and that of the body.
const PIDS_MIN: u32 = 2;

/// One less than a Linux kernel can have (PID_MAX_LIMIT in its `threads.h`): the sandbox's init is one more.
const PIDS_MAX: u32 = (1 << 22) - 1;

/// Thousandths of a core. The kernel's least quota is 1 ms of every 100 ms, see cgroups(7) on `cpu.max`.
const CPU_MIN: u32 = 10;
const CPU_MAX: u32 = 1_000_000;

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
    /// The most that the root's tmpfs holds, in bytes.
    pub(crate) tmpfs: Option<u64>,
    /// The host name inside.
    pub(crate) hostname: Option<String>,
    /// Where belljar is to be found.
    pub(crate) krate: Path,
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
        if let (Some((_, span)), false) = (reader.tmpfs, everything || reader.has("mount")) {
            reader.add(Error::new(span, "`tmpfs` is the size of the root that `mount` makes: write `mount` too"));
        }
        let args = Self {
            net: everything || reader.has("net"),
            mount: everything || reader.has("mount"),
            timeout: reader.timeout,
            memory: reader.memory,
            pids: reader.pids,
            cpu: reader.cpu,
            tmpfs: reader.tmpfs.map(|(bytes, _)| bytes),
            hostname: reader.hostname,
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
    tmpfs: Option<(u64, Span)>,
    hostname: Option<String>,
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

    /// Reads one argument: a word, or a key with its value.
    fn argument(&mut self, input: ParseStream<'_>, span: Span) -> syn::Result<()> {
        if input.is_empty() {
            return Err(Error::new(span, "expected an argument before this comma"));
        }
        let Ok(name) = input.call(Ident::parse_any) else {
            return Err(input.error(format!("expected a name; {}", valid_arguments())));
        };
        let text = name.to_string();
        if WORDS.contains(&text.as_str()) {
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
            return Err(Error::new(name.span(), format!("unknown argument `{text}`; {}", valid_arguments())));
        };
        if input.is_empty() {
            return Err(Error::new(name.span(), format!("`{text}` takes a value: write `{example}`")));
        }
        if input.parse::<Token![=]>().is_err() || input.is_empty() {
            return Err(input.error(format!("expected a value: write `{example}`")));
        }
        if self.keys.contains(&text) {
            return Err(twice(&name));
        }
        match text.as_str() {
            "timeout" => self.timeout = Some(timeout(&string(input, example)?)?),
            "memory" => self.memory = Some(memory(&string(input, example)?)?),
            "pids" => self.pids = Some(pids(&input.parse().map_err(expected("a whole number", example))?)?),
            "cpu" => self.cpu = Some(cpu(&input.parse().map_err(expected("a number", example))?)?),
            "tmpfs" => self.tmpfs = Some((memory(&string(input, example)?)?, name.span())),
            "hostname" => self.hostname = Some(hostname(&string(input, example)?)?),
            _ => self.krate = Some(input.call(Path::parse_mod_style).map_err(expected("a path", example))?),
        }
        if !input.is_empty() {
            return Err(input.error(format!("expected a comma after the value of `{text}`")));
        }
        self.keys.push(text);
        Ok(())
    }
}

fn twice(name: &Ident) -> Error {
    Error::new(name.span(), format!("`{name}` is written twice: remove one"))
}

fn valid_arguments() -> String {
    let keys: Vec<_> = KEYS.iter().map(|(_, example)| format!("`{example}`")).collect();
    format!(
        "the words are {}, and the options are {}",
        WORDS.map(|word| format!("`{word}`")).join(", "),
        keys.join(", ")
    )
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

fn string(input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    input.parse().map_err(expected("a string", example))
}

/// Says what was expected where an error is.
fn expected(kind: &str, example: &str) -> impl FnOnce(Error) -> Error {
    let text = format!("expected {kind}: write `{example}`");
    |error| Error::new(error.span(), text)
}

fn timeout(literal: &LitStr) -> syn::Result<Duration> {
    let text = literal.value();
    match humantime::parse_duration(&text) {
        Ok(Duration::ZERO) => Err(Error::new(literal.span(), "a timeout of zero leaves the test no time to run")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(Error::new(
            literal.span(),
            format!("`{text}` is no duration ({error}): write one like \"5s\", \"250ms\" or \"1m 30s\""),
        )),
    }
}

fn memory(literal: &LitStr) -> syn::Result<u64> {
    let text = literal.value();
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes < MEMORY_MIN => {
            let least = ByteSize(MEMORY_MIN);
            Err(Error::new(literal.span(), format!("`{text}` is too little for a sandbox: give it at least {least}")))
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
    fn values_have_their_bounds() {
        for (good, bad) in [
            (quote!(memory = "1MiB"), quote!(memory = "1MB")),
            (quote!(memory = "1000000000"), quote!(memory = "much")),
            (quote!(memory = "2gib"), quote!(memory = "-2GiB")),
            (quote!(pids = 2), quote!(pids = 1)),
            (quote!(pids = 4_194_303), quote!(pids = 4_194_304)),
            (quote!(cpu = 0.01), quote!(cpu = 0.009)),
            (quote!(cpu = 1000), quote!(cpu = 1000.1)),
        ] {
            assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
            assert!(errors(good.clone()).is_empty(), "{good}");
        }
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
