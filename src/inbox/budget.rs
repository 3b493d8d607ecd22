//! Budgets: how many runs a day (in UTC) there may be in all, for each agent, for each user and by each source.
//! Runs are counted in the inbox before a run is begun, so that a restart forgets nothing and several processes count
//! together.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::{CountRuns, InboxError};
use crate::config::Config;
use crate::model::{Account, Destination, Name, Params, Route, Timestamp};

/// The budget of everything, apart from the runs of callers with foreign keys.
pub const ALL: &str = "all";

/// The budget of all runs of callers with foreign keys: they spend what is not the operator's, and take nothing from
/// it.
pub const FOREIGN: &str = "foreign";

/// Number of days an engine keeps, for whoever looks.
pub(super) const DAYS: i64 = 8;

/// A budget that one more run is counted against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spend {
    /// Its name.
    pub budget: String,
    /// Runs a day that it allows.
    pub most: u64,
}

/// The budgets of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    whole: Option<u64>,
    foreign: Option<u64>,
    agent: Option<u64>,
    user: Option<u64>,
    sources: HashMap<String, u64>,
    keys: HashMap<String, u64>,
}

/// A run that was counted.
#[derive(Debug)]
#[must_use = "what was not begun is given back"]
pub struct CountedRun {
    day: i64,
    budgets: Vec<String>,
}

/// Reasons not to begin a run.
#[derive(Debug)]
pub enum BudgetError {
    /// This budget is spent for today.
    Spent(String),
    /// The inbox could not count it.
    Inbox(InboxError),
}

impl Budgets {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let runs = config.limits.runs;
        let sources = config.sources.iter();
        Self {
            whole: runs.whole,
            foreign: config.dropin.runs_per_day.or(runs.whole),
            agent: runs.agent,
            user: runs.user,
            sources: sources
                .filter_map(|source| Some((source.name.clone(), source.runs_per_day?)))
                .collect(),
            keys: config
                .keys
                .iter()
                .filter_map(|key| Some((key.name.clone(), key.runs_per_day?)))
                .collect(),
        }
    }

    /// The number of runs that a budget allows, where it is the same for all days: not that of a single user.
    pub fn most(&self, budget: &str) -> Option<u64> {
        match budget.split_once('/') {
            None if budget == FOREIGN => self.foreign,
            None => self.whole,
            Some(("source", name)) => self.sources.get(name).copied(),
            Some(("key", name)) => self.keys.get(name).copied(),
            Some(("user", _)) => self.user,
            Some(_) => self.agent,
        }
    }

    /// Counts a run that is about to begin.
    pub async fn spend(
        &self,
        inbox: &dyn CountRuns,
        route: &Route,
        params: &Params,
        now: Timestamp,
    ) -> Result<CountedRun, BudgetError> {
        let spends = self.of(route, params);
        let counted = CountedRun {
            day: now.day(),
            budgets: spends.iter().map(|spend| spend.budget.clone()).collect(),
        };
        if spends.is_empty() {
            return Ok(counted);
        }
        match inbox.spend(counted.day, spends).await {
            Ok(None) => Ok(counted),
            Ok(Some(budget)) => Err(BudgetError::Spent(budget)),
            Err(error) => Err(BudgetError::Inbox(error)),
        }
    }

    /// True if a run might begin, without counting it.
    pub async fn has_room(
        &self,
        inbox: &dyn CountRuns,
        route: &Route,
        params: &Params,
        now: Timestamp,
    ) -> Result<(), BudgetError> {
        let wanted = self.of(route, params);
        if wanted.is_empty() {
            return Ok(());
        }
        let spent: HashMap<String, u64> = inbox
            .spent(now.day())
            .await
            .map_err(BudgetError::Inbox)?
            .into_iter()
            .collect();
        let over = wanted.into_iter().find(|spend| {
            spent
                .get(&spend.budget)
                .is_some_and(|runs| *runs >= spend.most)
        });
        over.map_or(Ok(()), |spend| Err(BudgetError::Spent(spend.budget)))
    }

    fn of(&self, route: &Route, params: &Params) -> Vec<Spend> {
        let Route {
            source,
            destination,
            account,
            ..
        } = route;
        // A name that two accounts' callers give is two users.
        let whose = match account {
            Account::Operator => source.clone(),
            Account::Key(_) | Account::Foreign => format!("{source}/{account}"),
        };
        let user = || {
            Some(format!(
                "user/{}",
                digest(
                    &whose,
                    params.get(Name::UserId).or(params.get(Name::UserEmail))?
                )
            ))
        };
        let spend = |budget: String, most: u64| Spend { budget, most };
        let whole = if account.is_foreign() {
            self.foreign
        } else {
            self.whole
        };
        let of_key_most = match account {
            Account::Key(name) => self.keys.get(name).map(|most| spend(of_key(name), *most)),
            Account::Operator | Account::Foreign => None,
        };
        let of_source_most = self
            .sources
            .get(source)
            .filter(|_| *account == Account::Operator);
        [
            whole.map(|most| spend(of_account(account).to_owned(), most)),
            of_source_most.map(|most| spend(of_source(source), *most)),
            of_key_most,
            self.agent
                .map(|most| spend(of_destination(account, destination), most)),
            self.user.and_then(|most| Some(spend(user()?, most))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl CountedRun {
    /// The run was not begun after all.
    pub async fn give_back(self, inbox: &dyn CountRuns) {
        if self.budgets.is_empty() {
            return;
        }
        if let Err(error) = inbox.give_back(self.day, self.budgets).await {
            tracing::warn!(%error, "a run that was not begun stays counted against its budgets");
        }
    }
}

/// The budget of everything that counts with an account. Callers with gateway keys count with the operator, whose
/// money they spend.
pub const fn of_account(account: &Account) -> &'static str {
    if account.is_foreign() { FOREIGN } else { ALL }
}

/// The budget of a destination as an account calls it.
pub fn of_destination(account: &Account, destination: &Destination) -> String {
    if account.is_foreign() {
        format!("{FOREIGN}/{destination}")
    } else {
        destination.to_string()
    }
}

/// The budget of a source.
pub fn of_source(source: &str) -> String {
    format!("source/{source}")
}

/// The budget of the callers with a gateway key of this name.
pub fn of_key(name: &str) -> String {
    format!("key/{name}")
}

/// A user's name in the table: enough to count by, and nothing of who it is.
fn digest(source: &str, user: &str) -> String {
    let digest = Sha256::new()
        .chain_update(source)
        .chain_update([0])
        .chain_update(user)
        .finalize();
    hex::encode(&digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Class, Origin, Param};

    #[test]
    fn a_run_is_counted_against_all_that_it_is_part_of() {
        let budgets = Budgets {
            whole: Some(9),
            foreign: Some(3),
            agent: Some(8),
            user: Some(7),
            sources: HashMap::from([("s".to_owned(), 6), ("t".to_owned(), 5)]),
            keys: HashMap::from([("ci".to_owned(), 4)]),
        };
        let of = |budgets: &Budgets, account: &str, source: &str, params: &Params| {
            let (destination, account) = ("agent/a".parse().unwrap(), account.parse().unwrap());
            let route = Route {
                source: source.to_owned(),
                destination,
                account,
                class: Class::Normal,
            };
            budgets
                .of(&route, params)
                .into_iter()
                .map(|spend| (spend.budget, spend.most))
                .collect::<Vec<_>>()
        };
        let names = |budgets: &Budgets, source: &str, params: &Params| {
            of(budgets, "operator", source, params)
        };
        let nobody = Params::default();
        let known = |name: &str, most| (name.to_owned(), most);
        assert_eq!(
            names(&budgets, "s", &nobody),
            [known("all", 9), known("source/s", 6), known("agent/a", 8)]
        );
        assert_eq!(
            names(&budgets, "dropin", &nobody),
            [known("all", 9), known("agent/a", 8)]
        );
        assert!(names(&Budgets::default(), "s", &nobody).is_empty());
        let ann = Param {
            name: Name::UserId,
            value: "ann".into(),
            origin: Origin::Template,
            over: vec![],
        };
        let somebody = Params::new(vec![ann]);
        let only = Budgets {
            user: Some(7),
            ..Budgets::default()
        };
        let (here, there) = (names(&only, "s", &somebody), names(&only, "t", &somebody));
        assert!(
            here[0].0.starts_with("user/") && !here[0].0.contains("ann"),
            "{here:?}"
        );
        assert_ne!(here, there, "another source's ann is somebody else");
        let account = |account: &str| of(&budgets, account, "dropin", &somebody);
        for (budget, most) in names(&budgets, "t", &somebody)
            .into_iter()
            .chain(account("foreign"))
        {
            assert_eq!(budgets.most(&budget), Some(most), "{budget}");
        }
        assert_eq!(
            account("foreign")[..2],
            [known("foreign", 3), known("foreign/agent/a", 8)]
        );
        assert_eq!(
            account("key/ci")[..3],
            [known("all", 9), known("key/ci", 4), known("agent/a", 8)]
        );
        assert_eq!(
            account("key/other")[..2],
            [known("all", 9), known("agent/a", 8)]
        );
        assert_eq!(budgets.most("key/ci"), Some(4));
        assert_ne!(
            account("foreign")[2],
            account("key/ci")[3],
            "a stranger's ann is nobody of ours"
        );
    }
}
