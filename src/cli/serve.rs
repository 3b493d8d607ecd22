//! Run the gateway, or one part of it.

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::reload::{Watch, whole};
use super::{CommandResult, ConfigFile, say, stop_signal, tally};
use crate::app::{self, App, Listeners, engine};
use crate::config::Problems;
use crate::model::{Clock, Role};
use crate::telemetry::log;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Tasks of this process: ingress, dispatch, admin. Less than all needs an inbox on Postgres
    #[arg(
        long,
        value_name = "ROLES",
        value_delimiter = ',',
        default_value = "ingress,dispatch,admin"
    )]
    roles: Vec<Role>,
    /// Bring the inbox's schema up to date first, also on Postgres
    #[arg(long)]
    migrate: bool,
}

pub(super) async fn run(serve: &Serve) -> CommandResult {
    let file = &serve.file;
    // What is written from here on is a change.
    let text = whole(&file.config).unwrap_or_default();
    let problems = Problems::default();
    let compiled = app::compile(&file.config, &problems);
    let problems = problems.into_sorted();
    for problem in &problems {
        say(&problem.to_string());
    }
    let Some((config, sources)) = compiled else {
        say(&format!(
            "{}: {}; nothing was started",
            file.config.display(),
            tally(&problems)
        ));
        return Ok(ExitCode::FAILURE);
    };
    log::start(&config.log)?;
    let watch = Watch::new(&file.config, &config, text);
    // Told to stop while starting counts as told to stop.
    let stop = stop_signal()?;
    let roles = serve.roles.iter().copied().collect();
    let listeners = Listeners::bind(&config, roles).await?;
    if serve.migrate {
        engine::migrate(&config).await?;
    }
    let app = App::build(config, sources, roles, Clock::system()).await?;
    let (send, reloads) = mpsc::channel(1);
    let (orders, ordered) = mpsc::channel(4);
    app.loaded().take_orders(orders);
    let watch = watch.over(app.loaded(), send);
    let watch = tokio::spawn(watch.run(signal(SignalKind::hangup())?, ordered));
    let served = app.serve(listeners, reloads, stop).await;
    watch.abort();
    served?;
    Ok(ExitCode::SUCCESS)
}
