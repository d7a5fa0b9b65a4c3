//! Sweeps: code that runs once for each call of a kind, with that call failing. See [`Sweep`].

mod case;
mod report;
mod state;
mod sweep;
mod swept;

pub use sweep::Sweep;
pub use swept::{Ended, Swept};
