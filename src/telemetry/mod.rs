//! Telemetry of the program: log lines, metrics, and samples of refused requests.

mod definition;
mod field;
mod json_line;
mod line;
pub mod log;
pub mod metric;
pub mod panic;
mod sample;
mod sparse;
mod uses;

pub use metric::{Metrics, SourceGauges};
pub use sample::{RefusedSample, RefusedSamples, WholeRequest};
pub use sparse::SparseLines;
pub use uses::{Use, Uses};
