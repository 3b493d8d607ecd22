//! Run the gateway, or one part of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{ConfigFile, Ended, say, stop_signal, tally};
use crate::app::{self, App, Listeners, engine};
use crate::config::{Config, Problem, Problems, Weight};
use crate::model::{Clock, Role};
use crate::source::Sources;
use crate::telemetry::log;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// What this process does: ingress, dispatch, admin. Less than all needs an inbox on Postgres
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_value = "ingress,dispatch,admin")]
    roles: Vec<Role>,
    /// Bring the inbox's schema up to date first, also on Postgres
    #[arg(long)]
    migrate: bool,
}

pub(super) async fn run(serve: &Serve) -> Ended {
    let file = &serve.file;
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
    let roles = serve.roles.iter().copied().collect();
    let listeners = Listeners::bind(&config, roles).await?;
    if serve.migrate {
        engine::migrate(&config).await?;
    }
    let app = App::build(config, sources, roles, Clock::system()).await?;
    let (send, reloads) = mpsc::channel(1);
    let watch = tokio::spawn(watch(file.config.clone(), signal(SignalKind::hangup())?, send));
    let served = app.serve(listeners, reloads, stop).await;
    watch.abort();
    served?;
    Ok(ExitCode::SUCCESS)
}

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the configuration again at SIGHUP and when its file has changed. What is wrong with it is logged with its
/// place, and the one before stays.
async fn watch(file: PathBuf, mut hangup: Signal, reloads: mpsc::Sender<(Config, Sources)>) {
    let written = || std::fs::metadata(&file).and_then(|data| data.modified()).ok();
    let mut seen = written();
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = tokio::time::sleep(LOOK) => {
                let now = written();
                // A file that is gone is being replaced.
                if now.is_none() || now == seen {
                    continue;
                }
            }
        }
        seen = written();
        let problems = Problems::default();
        let compiled = app::compile(&file, &problems);
        let problems = problems.into_sorted();
        for Problem { weight, place, what, hint } in &problems {
            match weight {
                Weight::Error => tracing::error!(%place, hint, "{what}"),
                Weight::Warning => tracing::warn!(%place, hint, "{what}"),
            }
        }
        match compiled {
            Some(compiled) => {
                if reloads.send(compiled).await.is_err() {
                    return;
                }
            }
            None => tracing::error!(problems = tally(&problems), "configuration not reloaded, the old one stays"),
        }
    }
}
