//! apply (to be written)
mod progress;
pub use progress::{Progress, Seen};
