//! The command line: one command, one variant, one file. Answers go to standard output, messages to standard error.

mod backup;
mod check;
mod demo;
mod destination;
mod event;
mod gateway;
mod health;
mod help;
mod init;
mod key;
mod map;
mod migrate;
mod pause;
mod print;
mod provider;
mod reconcile;
mod refused;
mod reload;
mod replay;
mod restore;
mod send;
mod serve;
mod sheet;
mod source;
mod status;
mod stub;
#[cfg(test)]
mod tests;
mod verify;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Problem, Problems, Weight, unit};
use crate::model::Timestamp;
use crate::telemetry::log;

/// Exit code of a command that ran to its end.
type CommandResult = anyhow::Result<ExitCode>;

/// A webhook gateway for AI agents: proves who calls, keeps every event, runs the agent once.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, arg_required_else_help = true, after_help = help::FIRST_STEPS,
    after_long_help = help::MORE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C
    Serve(serve::Serve),
    /// Bring the inbox's schema up to date and stop
    Migrate(ConfigFile),
    /// Copy the inbox to a file, while the gateway goes on
    ///
    /// The copy is of one moment. The key that was made beside the inbox is copied to FILE.key. Files that came along are
    /// not in it.
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the inbox, so that nothing runs a second time
    ///
    /// What was still to run when the backup was made may have run since: the upstream is asked about each before it is
    /// sent, and every run is paused until `sluicegate resume`. Without FILE, an inbox that was put back by other means
    /// (pg_restore, a copied file) is treated in the same way. No gateway may be running.
    Restore(restore::RestoreArgs),
    /// Ask a running gateway whether it is ready; exits with 0 when it is
    Health(ConfigFile),
    /// Say whether all is well, and what is not
    ///
    /// What is paused, left alone, spent, dead, unknown, waiting for long or full is listed with what to do about it. The
    /// exit code is 0 when all is well and 1 when something needs attention.
    Status(status::Status),
    /// Read a configuration, report every problem with its place, start nothing
    ///
    /// The exit code is 0 when it is good, and 1 when it has errors; with --deny-warnings also when it has warnings. The
    /// addresses to give to each provider are printed as well.
    Check(check::CheckArgs),
    /// Write a configuration to begin with
    Init(init::Init),
    /// Show the whole way of events with a stand-in for the upstream: no account, no network
    Demo(demo::Demo),
    /// Run the stand-in for the upstream's API alone
    #[command(after_long_help = help::STANDIN)]
    Stub(stub::StubArgs),
    /// List, show, replay and resend events, settle deliveries, through the admin API
    #[command(subcommand, after_long_help = help::EVENTS)]
    Event(event::EventCommand),
    /// Look at replays in bulk and steer them
    #[command(subcommand, after_long_help = help::REPLAYS)]
    Replay(replay::ReplayCommand),
    /// List sources, pause and resume them
    #[command(subcommand, after_long_help = help::SOURCES)]
    Source(source::SourceCommand),
    /// List destinations, pause, resume and reset them
    #[command(subcommand, after_long_help = help::DESTINATIONS)]
    Destination(destination::DestinationCommand),
    /// List the gateway's own keys and how they were used
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Show which requests were refused, and why
    #[command(after_long_help = help::REFUSALS)]
    Refused(refused::RefusedArgs),
    /// Stop every run, whoever asks for it; what comes in is still kept
    ///
    /// When it returns, no run begins any more in the process that was asked, and in every other one within a second.
    /// Runs that were sent before go on to their end.
    Pause(pause::All),
    /// Let runs go on
    Resume(pause::All),
    /// Have a running gateway read its configuration again, and say when it holds
    ///
    /// The one process that is asked reads it; each other one watches its own file. What is wrong with the file is told,
    /// and the configuration before goes on holding.
    Reload(reload::Reload),
    /// Show what a captured request is mapped to, and why
    #[command(subcommand)]
    Map(map::MapCommand),
    /// List the providers that are known, show one, judge requests by one, check a new one
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Find what a provider sent and what never arrived, and pull it in
    Reconcile(reconcile::Reconcile),
    /// Send an event to a running gateway, signed as its provider would
    Send(send::Send),
    /// Explain what becomes of a captured request
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
}

/// The widest help, however wide the terminal is.
const WIDEST_HELP: usize = 100;

/// The command line as it stands, or what clap says of it and the end of the process.
fn parsed() -> Cli {
    let width = sheet::width(sheet::out_columns().or(sheet::talk_columns())).min(WIDEST_HELP);
    let matches = Cli::command().term_width(width).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Option that names the configuration.
#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "sluicegate.toml")]
    config: PathBuf,
}

/// The configuration, for commands that need nothing of it but where the inbox is.
fn inbox_config(file: &ConfigFile) -> anyhow::Result<Config> {
    let problems = Problems::default();
    let config = Config::load(&file.config, &problems);
    config.with_context(|| {
        for problem in problems.into_sorted() {
            say(&problem.to_string());
        }
        format!("{} cannot be read", file.config.display())
    })
}

/// Parses the command line and runs it.
pub fn run() -> ExitCode {
    let command = parsed().command;
    keep_memory_private();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(serve) => serve::run(&serve).await,
            Command::Migrate(file) => migrate::run(&file).await,
            Command::Backup(backup) => backup::run(&backup).await,
            Command::Restore(restore) => restore::run(&restore).await,
            Command::Health(file) => health::run(&file).await,
            Command::Status(status) => status::run(&status).await,
            Command::Refused(refused) => refused::run(&refused).await,
            Command::Check(check) => check::run(&check).await,
            Command::Init(init) => init::run(&init),
            Command::Demo(demo) => demo::run(&demo).await,
            Command::Stub(stub) => stub::run(stub).await,
            Command::Event(event) => event::run(event).await,
            Command::Replay(command) => replay::run(command).await,
            Command::Source(command) => source::run(command).await,
            Command::Destination(command) => destination::run(command).await,
            Command::Pause(all) => pause::run(all, "pause").await,
            Command::Resume(all) => pause::run(all, "resume").await,
            Command::Reload(reload) => reload::run(reload).await,
            Command::Key(command) => key::run(command).await,
            Command::Map(command) => map::run(command).await,
            Command::Provider(command) => provider::run(&command),
            Command::Reconcile(reconcile) => reconcile::run(&reconcile).await,
            Command::Send(send) => send::run(&send).await,
            Command::Verify(command) => verify::run(command).await,
        }
    });
    // What still runs is cut: every command has drained what it must.
    runtime.shutdown_background();
    log::flush();
    match ended {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Keeps secrets in memory private: no core dump is written, and no other program of the same user can read them.
/// Where the system refuses that, the program runs all the same.
fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// One line for what failed, and one for each cause.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut lines = format!("error: {error}");
    for cause in error.chain().skip(1) {
        lines.push_str(&format!("\n  because: {cause}"));
    }
    say(&lines);
    match error.is::<UsageError>() {
        true => WRONG_USAGE.into(),
        false => ExitCode::FAILURE,
    }
}

/// The exit code when the command line is wrong, as clap has it.
const WRONG_USAGE: u8 = 2;

/// The command line is wrong in a way that only the command itself can see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

fn usage(what: impl Into<String>) -> anyhow::Error {
    UsageError(what.into()).into()
}

/// A time as typed: whole, a date (its beginning, in UTC), or how long ago.
fn since(option: &str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let day = |ago: u64| {
        Timestamp::from_seconds((now - Duration::from_secs(ago * 86_400)).day() * 86_400)
    };
    let found = match text {
        "today" => Some(day(0)),
        "yesterday" => Some(day(1)),
        _ => Timestamp::parse(text)
            .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
            .or_else(|| Timestamp::parse(&format!("{}:00Z", text.replace(' ', "T"))))
            .or_else(|| Timestamp::parse(&format!("{}Z", text.replace(' ', "T"))))
            .or_else(|| unit::duration(text).map(|ago| now - ago)),
    };
    found.ok_or_else(|| {
        let text = print::line(text);
        usage(format!(
            "{option} cannot be \"{text}\"; write 2026-01-31, 2026-01-31T12:00:00Z, 2h or 30min"
        ))
    })
}

/// True if the reader of our output has closed it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Talk: a line on standard error. A terminal that is gone is no reason to stop.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stderr().lock(),
        "{}",
        sheet::prose(text, sheet::talk_columns())
    );
}

/// An answer in words: lines on standard output, broken where the terminal ends.
fn tell(text: &str) -> std::io::Result<()> {
    answer(&sheet::prose(text, sheet::out_columns()))
}

/// An answer, byte for byte: lines on standard output.
fn answer(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Resolves at SIGTERM or Ctrl-C. Listens from the call on, so that no signal is missed before the first wait.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Address to call a listener at: one that listens on every address is called on the loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The most events a minute that are replayed.
const MAX_PACE: u32 = 6000;

/// Parses a number of events a minute.
fn pace(text: &str) -> Result<u32, String> {
    let pace = unit::rate(text).map(|rate| u64::from(rate.count) * 60 / rate.per.as_secs().max(1));
    let pace = pace
        .and_then(|pace| u32::try_from(pace).ok())
        .filter(|pace| (1..=MAX_PACE).contains(pace));
    pace.ok_or_else(|| format!("write for example 60/min; from 1/min to {MAX_PACE}/min"))
}

/// The number of errors and warnings in a list, as words.
fn tally(problems: &[Problem]) -> String {
    let errors = problems
        .iter()
        .filter(|problem| problem.weight == Weight::Error)
        .count();
    let warnings = problems.len() - errors;
    let count = |number: usize, word: &str| {
        format!("{number} {word}{}", if number == 1 { "" } else { "s" })
    };
    format!("{}, {}", count(errors, "error"), count(warnings, "warning"))
}

#[cfg(test)]
mod typed {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_time_or_how_long_ago() {
        let now = Timestamp::parse("2026-11-30T21:00:00Z").expect("a time");
        for (text, time) in [
            ("2h", "2026-11-30T19:00:00Z"),
            ("30min", "2026-11-30T20:30:00Z"),
            ("2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"),
            ("2026-11-30", "2026-11-30T00:00:00Z"),
            ("2026-11-30 14:05", "2026-11-30T14:05:00Z"),
            ("2026-11-30T14:05:09", "2026-11-30T14:05:09Z"),
            ("today", "2026-11-30T00:00:00Z"),
            ("yesterday", "2026-11-29T00:00:00Z"),
        ] {
            assert_eq!(
                since("--since", text, now).expect(text),
                Timestamp::parse(time).expect("a time"),
                "{text}"
            );
        }
        for wrong in ["", "tomorrow", "2026-13-01", "2026-11-30T", "h"] {
            let error = since("--since", wrong, now).expect_err(wrong);
            assert!(
                error.is::<UsageError>() && error.to_string().contains("2026-01-31"),
                "{error}"
            );
        }
    }
}
