//! Budgets: how many runs a day (in UTC) there may be in all, for each agent, for each user and by each source. Counted
//! in the inbox before a run is begun, so that a restart forgets nothing and several processes count together.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::{Inbox, InboxError, Spend};
use crate::config::Config;
use crate::model::{Destination, Name, Params, Timestamp};

/// The budget of everything.
pub const ALL: &str = "all";

/// How many days an engine keeps, for whoever looks.
pub(super) const DAYS: i64 = 8;

/// The budgets of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    whole: Option<u64>,
    agent: Option<u64>,
    user: Option<u64>,
    sources: HashMap<String, u64>,
}

/// A run that was counted.
#[derive(Debug)]
#[must_use = "what was not begun is given back"]
pub struct Counted {
    day: i64,
    budgets: Vec<String>,
}

/// Why a run is not begun.
#[derive(Debug)]
pub enum Uncounted {
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
            agent: runs.agent,
            user: runs.user,
            sources: sources.filter_map(|source| Some((source.name.clone(), source.runs_per_day?))).collect(),
        }
    }

    /// What is allowed, by name, where it is the same for all days: not what each user may.
    pub fn most(&self, budget: &str) -> Option<u64> {
        match budget.split_once('/') {
            None => self.whole,
            Some(("source", name)) => self.sources.get(name).copied(),
            Some(("user", _)) => self.user,
            Some(_) => self.agent,
        }
    }

    /// Counts a run that is about to begin.
    pub async fn spend(
        &self,
        inbox: &dyn Inbox,
        source: &str,
        destination: &Destination,
        params: &Params,
        now: Timestamp,
    ) -> Result<Counted, Uncounted> {
        let spends = self.of(source, destination, params);
        let counted = Counted { day: now.day(), budgets: spends.iter().map(|spend| spend.budget.clone()).collect() };
        if spends.is_empty() {
            return Ok(counted);
        }
        match inbox.spend(counted.day, spends).await {
            Ok(None) => Ok(counted),
            Ok(Some(budget)) => Err(Uncounted::Spent(budget)),
            Err(error) => Err(Uncounted::Inbox(error)),
        }
    }

    /// Whether a run might begin, without counting it.
    pub async fn has_room(
        &self,
        inbox: &dyn Inbox,
        source: &str,
        destination: &Destination,
        params: &Params,
        now: Timestamp,
    ) -> Result<(), Uncounted> {
        let wanted = self.of(source, destination, params);
        if wanted.is_empty() {
            return Ok(());
        }
        let spent: HashMap<String, u64> = inbox.spent(now.day()).await.map_err(Uncounted::Inbox)?.into_iter().collect();
        let over = wanted.into_iter().find(|spend| spent.get(&spend.budget).is_some_and(|runs| *runs >= spend.most));
        over.map_or(Ok(()), |spend| Err(Uncounted::Spent(spend.budget)))
    }

    fn of(&self, source: &str, destination: &Destination, params: &Params) -> Vec<Spend> {
        let user =
            || Some(format!("user/{}", digest(source, params.get(Name::UserId).or(params.get(Name::UserEmail))?)));
        let spend = |budget: String, most: u64| Spend { budget, most };
        [
            self.whole.map(|most| spend(ALL.to_owned(), most)),
            self.sources.get(source).map(|most| spend(of_source(source), *most)),
            self.agent.map(|most| spend(destination.to_string(), most)),
            self.user.and_then(|most| Some(spend(user()?, most))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Counted {
    /// The run was not begun after all.
    pub async fn give_back(self, inbox: &dyn Inbox) {
        if self.budgets.is_empty() {
            return;
        }
        if let Err(error) = inbox.give_back(self.day, self.budgets).await {
            tracing::warn!(%error, "a run that was not begun stays counted against its budgets");
        }
    }
}

/// The budget of a source.
pub fn of_source(source: &str) -> String {
    format!("source/{source}")
}

/// A user's name in the table: enough to count by, and nothing of who it is.
fn digest(source: &str, user: &str) -> String {
    let digest = Sha256::new().chain_update(source).chain_update([0]).chain_update(user).finalize();
    hex::encode(&digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DestinationKind, Origin, Param};

    #[test]
    fn a_run_is_counted_against_all_that_it_is_part_of() {
        let budgets = Budgets {
            whole: Some(9),
            agent: Some(8),
            user: Some(7),
            sources: HashMap::from([("s".to_owned(), 6), ("t".to_owned(), 5)]),
        };
        let to = Destination { kind: DestinationKind::Agent, id: "a".to_owned() };
        let names = |budgets: &Budgets, source: &str, params: &Params| {
            budgets.of(source, &to, params).into_iter().map(|spend| (spend.budget, spend.most)).collect::<Vec<_>>()
        };
        let nobody = Params::default();
        let known = |name: &str, most| (name.to_owned(), most);
        assert_eq!(names(&budgets, "s", &nobody), [known("all", 9), known("source/s", 6), known("agent/a", 8)]);
        assert_eq!(names(&budgets, "dropin", &nobody), [known("all", 9), known("agent/a", 8)]);
        assert!(names(&Budgets::default(), "s", &nobody).is_empty());
        let ann = Param { name: Name::UserId, value: "ann".into(), origin: Origin::Template, over: vec![] };
        let somebody = Params::new(vec![ann]);
        let only = Budgets { user: Some(7), ..Budgets::default() };
        let (here, there) = (names(&only, "s", &somebody), names(&only, "t", &somebody));
        assert!(here[0].0.starts_with("user/") && !here[0].0.contains("ann"), "{here:?}");
        assert_ne!(here, there, "another source's ann is somebody else");
        for (budget, most) in names(&budgets, "t", &somebody) {
            assert_eq!(budgets.most(&budget), Some(most), "{budget}");
        }
    }
}
