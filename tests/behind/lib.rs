//! A constructor that stands behind belljar's, in a test binary that names this crate before it names belljar: the linker gets what a
//! crate depends on after that crate, and otherwise those first that were named last.
#![expect(unsafe_code, reason = "a constructor")]

use std::sync::OnceLock;

/// What the constructor runs. One that stands before it sets it.
pub static RUN: OnceLock<fn()> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: extern "C" fn() = enter;

extern "C" fn enter() {
    if let Some(run) = RUN.get() {
        run();
    }
}
