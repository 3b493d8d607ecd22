//! What an operator types.

use std::process::ExitCode;

/// Parses the command line and runs it.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
