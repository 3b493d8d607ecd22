//! Run the gateway.

use std::process::ExitCode;

use super::{ConfigFile, Ended, say, stop_signal, tally};
use crate::app::{self, App, Listeners};
use crate::config::Problems;
use crate::model::Clock;
use crate::telemetry::log;

pub(super) async fn run(file: &ConfigFile) -> Ended {
    let problems = Problems::default();
    let compiled = app::compile(&file.config, &problems);
    let problems = problems.into_sorted();
    for problem in &problems {
        say(&problem.to_string());
    }
    let Some((config, sources)) = compiled else {
        say(&format!("{}: {}; nothing was started", file.config.display(), tally(&problems)));
        return Ok(ExitCode::FAILURE);
    };
    log::start(&config.log);
    // Told to stop while starting counts as told to stop.
    let stop = stop_signal()?;
    let listeners = Listeners::bind(&config).await?;
    let (public, admin) = (listeners.public.local_addr()?, listeners.admin.local_addr()?);
    let (count, inbox) = (config.sources.len(), config.inbox.path.display().to_string());
    let upstream = config.upstream.base_url.to_string();
    let app = App::build(config, sources, Clock::system()).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %public, %admin, sources = count, inbox, upstream, "serving");
    app.serve(listeners, stop).await?;
    Ok(ExitCode::SUCCESS)
}
