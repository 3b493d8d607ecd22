//! Numbers for routes.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::database::{change, rows};
use super::error::DatabaseError;
use crate::inbox::fair;
use crate::model::{Account, Class, NewDelivery, Route};

/// Bits of a route's number that count within its rank; the rank stands above them.
pub(super) const RANK_BITS: i32 = 27;

/// The numbers of routes. A route that has none yet is given one. A route's number never changes.
pub(super) async fn numbers(
    tx: &Transaction<'_>,
    wanted: impl Iterator<Item = Route>,
) -> Result<HashMap<Route, i32>, DatabaseError> {
    let wanted: BTreeSet<Route> = wanted.collect();
    let mut found = find(tx, &wanted).await?;
    let missing: BTreeSet<Route> = wanted
        .into_iter()
        .filter(|route| !found.contains_key(route))
        .collect();
    if !missing.is_empty() {
        let Columns {
            sources,
            destinations,
            accounts,
            classes,
        } = columns(&missing);
        let rank = |route: &Route| {
            i32::try_from(fair::rank(&route.account, route.class)).unwrap_or_default()
        };
        let ranks: Vec<i32> = missing.iter().map(rank).collect();
        change(
            tx,
            "INSERT INTO route (id, source, destination, account, class)
             SELECT (n.rank << $6) + nextval('route_number')::integer, n.source, n.destination, n.account, n.class
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[])
                AS n (source, destination, account, class, rank)
             ORDER BY n.source COLLATE \"C\", n.destination COLLATE \"C\", n.account COLLATE \"C\",
                n.class COLLATE \"C\" ON CONFLICT DO NOTHING",
            &[&sources, &destinations, &accounts, &classes, &ranks, &RANK_BITS],
        )
        .await?;
        found.extend(find(tx, &missing).await?);
    }
    Ok(found)
}

/// The number of a delivery's route among those that were looked for.
pub(super) fn number(
    routes: &HashMap<Route, i32>,
    source: &str,
    delivery: &NewDelivery,
) -> Result<i32, DatabaseError> {
    routes
        .get(&delivery.route(source))
        .copied()
        .ok_or_else(|| DatabaseError::Engine("a route is missing".into()))
}

async fn find(
    tx: &Transaction<'_>,
    wanted: &BTreeSet<Route>,
) -> Result<HashMap<Route, i32>, DatabaseError> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let Columns {
        sources,
        destinations,
        accounts,
        classes,
    } = columns(wanted);
    let found = rows(
        tx,
        "SELECT n.place, r.id FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                WITH ORDINALITY AS n (source, destination, account, class, place)
            JOIN route AS r ON r.source = n.source AND r.destination = n.destination AND r.account = n.account
                AND r.class = n.class",
        &[&sources, &destinations, &accounts, &classes],
    )
    .await?;
    let wanted: Vec<&Route> = wanted.iter().collect();
    let mut numbers = HashMap::with_capacity(found.len());
    for row in found {
        let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        if let Some(route) = wanted.get(place.wrapping_sub(1)) {
            numbers.insert((*route).clone(), row.try_get(1)?);
        }
    }
    Ok(numbers)
}

#[derive(Default)]
struct Columns<'a> {
    sources: Vec<&'a str>,
    destinations: Vec<String>,
    accounts: Vec<String>,
    classes: Vec<&'static str>,
}

fn columns(routes: &BTreeSet<Route>) -> Columns<'_> {
    let mut columns = Columns::default();
    for route in routes {
        columns.sources.push(&route.source);
        columns.destinations.push(route.destination.to_string());
        columns.accounts.push(route.account.to_string());
        columns.classes.push(route.class.as_str());
    }
    columns
}

/// A route from four columns: source, destination, account, class.
pub(super) fn read(row: &Row, column: usize) -> Result<Route, DatabaseError> {
    let destination = row.try_get::<_, &str>(column + 1)?.parse();
    Ok(Route {
        source: row.try_get(column)?,
        destination: destination
            .map_err(|_| DatabaseError::Engine("a route's destination cannot be read".into()))?,
        account: account(row, column + 2)?,
        class: class(row, column + 3)?,
    })
}

/// A route's account.
pub(super) fn account(row: &Row, column: usize) -> Result<Account, DatabaseError> {
    let word: &str = row.try_get(column)?;
    word.parse()
        .map_err(|_| DatabaseError::Engine(format!("{word:?} is no account")))
}

/// A route's class.
pub(super) fn class(row: &Row, column: usize) -> Result<Class, DatabaseError> {
    let word: &str = row.try_get(column)?;
    Class::parse(word).ok_or_else(|| DatabaseError::Engine(format!("{word:?} is no class")))
}
