//! Events, as the trace event format of browsers' trace viewers has them.

use std::hash::{BuildHasher as _, RandomState};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::json::Json;

/// Tells this process from all others that write to the file: their ids may be of different pid namespaces.
fn run_id() -> u64 {
    // Each `RandomState` has other keys, chosen at random.
    static ID: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(process::id()) >> 33);
    *ID
}

/// An event. Those of each kind have `members` of their own.
pub(super) fn event(kind: &str, name: &str, mut members: Vec<(&'static str, Json)>) -> Json {
    members.append(&mut vec![("ph", kind.into()), ("name", name.into()), ("pid", run_id().into())]);
    Json::object(members)
}

pub(super) fn args(key: &'static str, text: &str) -> (&'static str, Json) {
    ("args", Json::object(vec![(key, text.into())]))
}

/// What was done from `begin` to `end`, in nanoseconds of the monotonic clock.
pub(super) fn duration(row: u64, name: &str, path: &str, begin: u64, end: u64) -> Json {
    let (begin, end) = (micros(begin), micros(end.max(begin)));
    let mut members = vec![("tid", row.into()), ("ts", begin.into()), ("dur", (end - begin).into())];
    if !path.is_empty() {
        members.push(args("path", path));
    }
    event("X", name, members)
}

/// What has happened at one time.
pub(super) fn instant(row: u64, name: &str, at: u64) -> Json {
    event("i", name, vec![("s", "t".into()), ("tid", row.into()), ("ts", micros(at).into())])
}

/// An arrow from what was done at one time in one row to what was done because of that.
pub(super) fn arrow(name: &str, from: (u64, u64), to: (u64, u64)) -> [Json; 2] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{}-{}", run_id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let half = |kind: &str, (row, at): (u64, u64)| {
        let (ends, cat) = (("bp", "e".into()), ("cat", "belljar".into()));
        let id = ("id", id.as_str().into());
        event(kind, name, vec![ends, cat, id, ("tid", row.into()), ("ts", micros(at).into())])
    };
    [half("s", from), half("f", to)]
}

fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}
