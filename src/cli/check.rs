//! Read a configuration and its providers, report every problem, start nothing. The same path as starting.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{ConfigFile, Ended, answer, say, tally};
use crate::app;
use crate::config::{Problem, Problems, Weight};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the problems as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(check: &Check) -> Ended {
    let problems = Problems::default();
    let compiled = app::compile(&check.file.config, &problems);
    let problems = problems.into_sorted();
    if check.json {
        let list: Vec<_> = problems.iter().map(view).collect();
        answer(&json!({ "good": compiled.is_some(), "problems": list }).to_string())?;
    } else {
        for problem in &problems {
            answer(&problem.to_string())?;
        }
    }
    let file = check.file.config.display();
    match compiled {
        Some((config, _)) => {
            let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
            let warnings = if problems.is_empty() { String::new() } else { format!(" ({})", tally(&problems)) };
            say(&format!("{file}: good{warnings}; sources: {}", names.join(", ")));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            say(&format!("{file}: {}", tally(&problems)));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn view(problem: &Problem) -> serde_json::Value {
    json!({
        "weight": match problem.weight { Weight::Error => "error", Weight::Warning => "warning" },
        "file": &*problem.place.file,
        "line": problem.place.line,
        "what": problem.what,
        "hint": problem.hint,
    })
}
