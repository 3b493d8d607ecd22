//! Text below the options of a command's help: first steps, examples, exit codes. Plain ASCII, 80 columns.

/// Below the short help of the program.
pub(super) const FIRST_STEPS: &str = "\
First steps:
  sluicegate demo                  see it work: no account, no network
  sluicegate init                  write a configuration to begin with
  sluicegate check FILE            every mistake of a configuration at once
  sluicegate serve --config FILE   run the gateway
  sluicegate status --config FILE  whether all is well, and what is not
  sluicegate event list --config FILE   what came in, and what became of it";

/// Below the long one.
pub(super) const MORE: &str = "\
First steps:
  sluicegate demo                  see it work: no account, no network
  sluicegate init                  write a configuration to begin with
  sluicegate check FILE            every mistake of a configuration at once
  sluicegate serve --config FILE   run the gateway
  sluicegate status --config FILE  whether all is well, and what is not
  sluicegate event list --config FILE   what came in, and what became of it

Where a command asks a running gateway, it finds the address and the token in
the configuration file; --admin URL and --token-env NAME name them without one.

Exit codes:
  0  done; all is well
  1  failed; refused; something needs attention (status, check, health);
     warnings as well with check --deny-warnings
  2  the command line is wrong
  3  there is no such thing: event, source, destination, replay

Output fits the terminal, or COLUMNS, or else 80 columns. NO_COLOR takes the
colours away. --json prints what the admin API answers, for programs.";

pub(super) const EVENTS: &str = "\
Examples:
  sluicegate event list --source triage --since 2h
  sluicegate event list --open             what needs attention
  sluicegate event show evt_0193ab12
  sluicegate event replay evt_0193ab12 --dry-run
  sluicegate event replay --source triage --state dead --pace 30/min";

pub(super) const REPLAYS: &str = "\
Examples:
  sluicegate replay list
  sluicegate replay pace 7 120/min
  sluicegate replay cancel 7";

pub(super) const SOURCES: &str = "\
Examples:
  sluicegate source list
  sluicegate source pause triage           what comes in is still kept
  sluicegate source resume triage";

pub(super) const DESTINATIONS: &str = "\
Examples:
  sluicegate destination list
  sluicegate destination pause agent/support
  sluicegate destination reset agent/support   after it was mended";

pub(super) const REFUSALS: &str = "\
Examples:
  sluicegate refused                       the last ones, newest first
  sluicegate refused triage --follow
  sluicegate refused req_0123abcd          all that is kept of one
  sluicegate verify explain --refused req_0123abcd   with admin.keep_refused";

pub(super) const STANDIN: &str = "\
Examples:
  sluicegate stub
  sluicegate stub --delay 2s --fail 429=0.1
  sluicegate stub --agents support,triage --keys key-a,key-b

Point the gateway at it with upstream.base_url = \"http://127.0.0.1:9900\".
A message may ask for its own fate: [[stub delay=5s status=failed]]. What ran
is told at http://127.0.0.1:9900/_stub/runs. It runs no agent, and it is no
server for strangers.";
