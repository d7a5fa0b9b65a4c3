//! rust-analyzer shows its Run lens on isolated functions, and knows their bodies.
//!
//! This takes a rust-analyzer that can load the macro, which `.ci/analyzer` makes: `BELLJAR_TESTS_ANALYZER` is the command for it.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The workspace, by the path that it has in the server's tree as well.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const FILE: &str = "examples/hostname.rs";

/// A server that has read the workspace, by the protocol of <https://microsoft.github.io/language-server-protocol>.
struct Server {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: u64,
    uri: String,
}

impl Server {
    fn start(expands_macros: bool) -> Self {
        let command = env::var("BELLJAR_TESTS_ANALYZER").expect("BELLJAR_TESTS_ANALYZER: see .ci/analyzer");
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().expect("a word"));
        let mut child =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("rust-analyzer");
        let (to, from) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let workspace = Path::new(WORKSPACE).canonicalize().expect("the workspace");
        let uri = format!("file://{}", workspace.display());
        let mut server = Self { child, to, from: BufReader::new(from), asked: 0, uri };
        // All else that bears on what is shown is as editors have it by default.
        server.ask(
            "initialize",
            json!({
                "processId": null,
                "rootUri": server.uri,
                "capabilities": { "experimental": {
                    "serverStatusNotification": true,
                    "commands": { "commands": ["rust-analyzer.runSingle"] },
                } },
                "initializationOptions": { "procMacro": { "enable": expands_macros }, "checkOnSave": false, "cachePriming": { "enable": false } },
            }),
        );
        server.send(json!({ "method": "initialized", "params": {} }));
        server.wait_until(|message| {
            message["method"] == "experimental/serverStatus" && message["params"]["quiescent"] == true
        });
        server
    }

    fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = json!("2.0");
        let text = message.to_string();
        write!(self.to, "Content-Length: {}\r\n\r\n{text}", text.len()).and_then(|()| self.to.flush()).expect("sent");
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).expect("a line"), 0, "rust-analyzer has ended");
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().expect("a length"),
                Some(_) => {}
                None => break,
            }
        }
        let mut text = vec![0; length];
        self.from.read_exact(&mut text).expect("a message");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// The first message that is wanted. What the server asks meanwhile has no answer.
    fn wait_until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.receive();
            if message.get("method").is_some() && message.get("id").is_some() {
                self.send(json!({ "id": message["id"], "result": null }));
            }
            if is_wanted(&message) {
                return message;
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        self.send(json!({ "id": id, "method": method, "params": params }));
        let mut answer = self.wait_until(|message| message["id"] == id && message.get("method").is_none());
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    fn file(&self) -> Value {
        json!({ "uri": format!("{}/{FILE}", self.uri) })
    }

    /// What the lenses on the file run: the title, cargo's arguments and the harness's.
    fn lenses(&mut self) -> Vec<(String, Value, Value)> {
        let lenses = self.ask("textDocument/codeLens", json!({ "textDocument": self.file() }));
        let lens = |lens: &Value| {
            let command = &lens["command"];
            let args = &command["arguments"][0]["args"];
            let title = command["title"].as_str().expect("a title").to_owned();
            (title, args["cargoArgs"].clone(), args["executableArgs"].clone())
        };
        lenses.as_array().expect("a list").iter().map(lens).collect()
    }

    /// What is shown of the word `word`, where it is first written.
    fn hover(&mut self, word: &str) -> Value {
        let text = std::fs::read_to_string(Path::new(WORKSPACE).join(FILE)).expect("the file");
        let mut lines = text.lines().enumerate();
        let (line, column) = lines.find_map(|(line, text)| Some((line, text.find(word)?))).expect("the word");
        let position = json!({ "line": line, "character": column });
        self.ask("textDocument/hover", json!({ "textDocument": self.file(), "position": position }))
    }

    fn stop(mut self) {
        self.ask("shutdown", Value::Null);
        self.send(json!({ "method": "exit" }));
        assert!(self.child.wait().expect("its end").success());
    }
}

#[test]
fn isolated_functions_have_a_lens_and_a_body() {
    let mut server = Server::start(true);
    let lenses = server.lenses();
    let hover = server.hover("set(\"jar\")");
    server.stop();
    let title = "▶\u{fe0e} Run Test";
    for test in ["renames_the_machine", "is_called_as_asked"] {
        let cargo = json!(["test", "--package", "belljar-examples", "--test", "hostname"]);
        // Whoever runs it by the lens is not to be told that none was run.
        let harness = json!([test, "--exact", "--show-output"]);
        assert!(lenses.contains(&(title.to_owned(), cargo, harness)), "{lenses:#?}");
    }
    assert!(hover["contents"]["value"].to_string().contains("pub fn set"), "{hover:#}");
}

#[test]
fn without_macros_there_is_no_lens() {
    let mut server = Server::start(false);
    let lenses = server.lenses();
    server.stop();
    assert!(lenses.iter().all(|(title, ..)| !title.contains("Run Test")), "{lenses:#?}");
}
