//! What the environment asked for when the test binary began: before `main`, so that no test has a say in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Below which cgroup those of sandboxes go.
pub(crate) const BELLJAR_CGROUP: &str = "BELLJAR_CGROUP";

/// Where the report goes.
pub(crate) const BELLJAR_REPORT: &str = "BELLJAR_REPORT";

/// Where the trace goes.
pub(crate) const BELLJAR_TRACE: &str = "BELLJAR_TRACE";

/// What becomes of tests that the host can't run.
const BELLJAR_UNSUPPORTED: &str = "BELLJAR_UNSUPPORTED";

/// What becomes of the sandboxes of tests that fail.
const BELLJAR_ON_FAIL: &str = "BELLJAR_ON_FAIL";

/// Whether this host is to be looked at in place of running tests.
const BELLJAR_DOCTOR: &str = "BELLJAR_DOCTOR";

/// The values of those variables. An empty one is none.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cgroup: Option<OsString>,
    pub(crate) report: Option<OsString>,
    pub(crate) trace: Option<OsString>,
    pub(crate) unsupported: Option<OsString>,
    pub(crate) on_fail: Option<OsString>,
    pub(crate) doctor: Option<OsString>,
    /// The working directory.
    directory: PathBuf,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// The settings, which are read at the first call. Later the environment may be another.
pub(crate) fn settings() -> &'static Settings {
    SETTINGS.get_or_init(|| {
        let value = |name| env::var_os(name).filter(|value| !value.is_empty());
        Settings {
            cgroup: value(BELLJAR_CGROUP),
            report: value(BELLJAR_REPORT),
            trace: value(BELLJAR_TRACE),
            unsupported: value(BELLJAR_UNSUPPORTED),
            on_fail: value(BELLJAR_ON_FAIL),
            doctor: value(BELLJAR_DOCTOR),
            directory: env::current_dir().unwrap_or_default(),
        }
    })
}

impl Settings {
    /// A path that a setting names.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}
