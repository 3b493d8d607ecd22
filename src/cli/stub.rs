//! Run the stand-in for the upstream's API alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;

use super::{CommandResult, answer, stop_signal};
use crate::config::{Secret, unit};
use crate::stub::{self, FailRule, Stub, StubOptions};

#[derive(Debug, Args)]
pub(super) struct StubArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    listen: SocketAddr,
    /// The key that callers must show; without one any key will do
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// More keys that callers may show, with commas between; a gateway's own and those of its callers
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    keys: Vec<String>,
    /// The agents that there are, with commas between, like support or workflow/nightly; others are not found. Without
    /// any there are all
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    agents: Vec<String>,
    /// Time that a run takes, such as 200ms or 5s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    delay: Duration,
    /// Answer of every run, in place of a repetition of its prompt
    #[arg(long, value_name = "TEXT")]
    result: Option<String>,
    /// Faults and how often they happen: 429=0.1 is a tenth of the calls, drop-after=1/7 every seventh. Faults: a
    /// status, unavailable, gateway, drop-before, drop-after, slow, failed, malformed. May be given several times
    #[arg(long, value_name = "FAULT=HOW_OFTEN")]
    fail: Vec<FailRule>,
    /// Seed of the random order
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// A file to which a line of JSON is added for every run that begins or ends
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

fn time(text: &str) -> Result<Duration, &'static str> {
    unit::duration(text).ok_or("a time is a number and ms, s, min or h")
}

pub(super) async fn run(stub: StubArgs) -> CommandResult {
    let listener = TcpListener::bind(stub.listen)
        .await
        .with_context(|| format!("cannot listen on {}", stub.listen))?;
    let address = listener.local_addr()?;
    let options = StubOptions {
        api_key: stub.api_key.map(|key| Secret::new("--api-key", key)),
        keys: stub
            .keys
            .into_iter()
            .map(|key| Secret::new("--keys", key))
            .collect(),
        agents: stub.agents,
        delay: stub.delay,
        result: stub.result,
        fail: stub.fail,
        seed: stub.seed,
        journal: stub.journal,
    };
    let stub = Stub::new(options).context("cannot open the journal")?;
    answer(&format!(
        "the stand-in for the upstream is at http://{address}"
    ))?;
    stub::serve(listener, Arc::new(stub), stop_signal()?).await;
    Ok(ExitCode::SUCCESS)
}
