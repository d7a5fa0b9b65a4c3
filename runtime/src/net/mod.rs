//! A network laboratory in the sandbox: hosts, switches, routers and links that may be bad.
