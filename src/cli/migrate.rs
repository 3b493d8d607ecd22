//! Bring the inbox's schema up to date and stop. Several at once wait for each other; one that was killed is run again.

use std::process::ExitCode;

use super::{CommandResult, ConfigFile, say, tally};
use crate::app::{self, engine};
use crate::config::Problems;
use crate::telemetry::log;

pub(super) async fn run(file: &ConfigFile) -> CommandResult {
    let problems = Problems::default();
    let compiled = app::compile(&file.config, &problems);
    let problems = problems.into_sorted();
    for problem in &problems {
        say(&problem.to_string());
    }
    let Some((config, _)) = compiled else {
        say(&format!(
            "{}: {}; nothing was changed",
            file.config.display(),
            tally(&problems)
        ));
        return Ok(ExitCode::FAILURE);
    };
    log::start(&config.log)?;
    engine::migrate(&config).await?;
    say(&format!(
        "the inbox {} is up to date",
        config.inbox.engine.title()
    ));
    Ok(ExitCode::SUCCESS)
}
