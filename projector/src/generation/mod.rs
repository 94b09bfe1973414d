//! Generations: how another one takes the live one's place while everything runs.
//!
//! # The way
//! ```text
//! planned ─→ replaying ─→ catching_up ─→ converged ─→ verified ─→ live ─→ retired ─→ dropped
//!     └──────────┴────────────┴─────────────┴─────────────┴─→ abandoned     ↑    │
//!                                                                └── way back ───┘
//! ```
//! [`plan`] compares the projections' files with what is live. A rebuild makes a generation with a place and a consumer group
//! of its own; the hosts feed it from the beginning beside the live one. Nothing is handed over: when it is as far as the live
//! one, both stand still at the same place ([`crate::control::Barrier`]), are compared ([`compare()`]), and one decision makes the one live and
//! the other retired. The retired one is fed for a while, so that the way back is the same way again.
//!
//! # Who does it
//! All that a rebuild is, is in the control store. [`machine`] says what the next step is, given what is there; [`job`] does it. So
//! any process can go on where another one died: a command in the foreground holds a rebuild while it runs, and where nobody
//! does, a host ([`keeper`]) takes it up. Each step can be done twice.

mod compare;
mod health;
mod job;
mod keeper;
mod machine;
mod past;
mod plan;
mod sight;
mod site;

pub use compare::{Difference, Example, compare};
pub use job::{Ending, Job};
pub use keeper::keep;
pub use machine::{At, Step, View, next};
pub use plan::{Change, What, changes};
pub use site::{JobError, Site, Status, may_rebuild, origin};
