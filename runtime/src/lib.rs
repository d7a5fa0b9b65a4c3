//! Tests that rename the host, mount, edit routes and bind port 80: each in its own Linux sandbox, without root.
#![cfg(target_os = "linux")]
#![warn(clippy::unwrap_used, clippy::expect_used, reason = "hosts, users and test bodies do the unexpected")]

mod cgroup;
mod host;
mod message;
mod report;
mod sandbox;
mod spec;
mod sys;
mod zygote;

pub use belljar_macros::isolated;

/// What the attribute's expansion names. Not for other use: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::host::run;
    pub use crate::spec::{Spec, Test};

    use std::process::{ExitCode, Termination};

    /// Calls `body`, and returns the status that its value stands for, as the harness would.
    pub fn status<T: Termination>(body: fn() -> T) -> u8 {
        let code = __rust_begin_short_backtrace(body).report();
        // An exit code shows its number only by comparison. It has one: this is Unix.
        (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(u8::MAX)
    }

    /// By this name the standard library knows where the user's part of a backtrace begins.
    #[inline(never)]
    fn __rust_begin_short_backtrace<T>(body: fn() -> T) -> T {
        let value = body();
        // Keeps this frame, which a call at the end would not need.
        std::hint::black_box(());
        value
    }
}
