//! Sweeps: code that runs once for each call of a kind, with that call failing. See [`Sweep`].

mod builder;
mod case;
mod report;
mod state;
mod swept;

pub use builder::Sweep;
pub use swept::{Ended, Swept};
