//! Cgroups: one for each sandbox, with its limits; what they tell of a test's end; and their removal. See cgroups(7).
//!
//! It happens in the test binary, which hands a sandbox the descriptors by which it joins, and those of its [`groups`]. Below
//! the cgroup that the tests run in, each test binary makes a directory of its own in every hierarchy it needs, and locks it.
//! When a test binary is ended by a signal, its [`sweeper`] removes them. Where that was killed too, the next test binary that comes by
//! does: what is not locked belongs to nobody any more.
//!
//! A written limit is a promise. If belljar can't set it, the error is a [`NoCgroup`]. Other limits are best effort.

mod controller;
mod directory;
mod find;
mod groups;
mod leaf;
mod limits;
mod locked;
mod of_sandbox;
mod run;
mod sweeper;
mod systemd;
mod v1;

pub(crate) use controller::{Controller, NoCgroup};
pub(crate) use directory::Directory;
#[cfg(any(test, fuzzing))]
pub(crate) use find::fuzz;
pub(crate) use find::{chosen, limits_on_processes};
pub(crate) use groups::{GroupHandle, NoGroup, refused};
#[cfg(any(test, fuzzing))]
pub(crate) use limits::fuzz_counts;
pub(crate) use limits::{DEFAULT_PIDS, memory_used_up, usage_of};
pub(crate) use of_sandbox::{Cgroup, Events, Joining};
pub(crate) use run::{clean_up, hold, make, see_to_sweeper, wait_for_sweeper};
pub(crate) use sweeper::sweep_after;
pub(crate) use v1::V1Hierarchy;
