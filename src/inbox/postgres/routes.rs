//! Numbers for routes.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;

use super::database::{change, rows};
use super::fault::Fault;
use crate::model::{NewDelivery, Route};

/// The numbers of routes, new ones where there are none. A route's number never changes.
pub(super) async fn numbers(
    turn: &Transaction<'_>,
    wanted: impl Iterator<Item = Route>,
) -> Result<HashMap<Route, i32>, Fault> {
    let wanted: BTreeSet<Route> = wanted.collect();
    let mut found = find(turn, &wanted).await?;
    let missing: BTreeSet<Route> = wanted.into_iter().filter(|route| !found.contains_key(route)).collect();
    if !missing.is_empty() {
        let (sources, destinations) = columns(&missing);
        change(
            turn,
            "INSERT INTO route (source, destination)
             SELECT * FROM unnest($1::text[], $2::text[]) AS n (source, destination)
             ORDER BY n.source COLLATE \"C\", n.destination COLLATE \"C\" ON CONFLICT DO NOTHING",
            &[&sources, &destinations],
        )
        .await?;
        found.extend(find(turn, &missing).await?);
    }
    Ok(found)
}

/// The number of a delivery's route among those that were looked for.
pub(super) fn number(routes: &HashMap<Route, i32>, source: &str, delivery: &NewDelivery) -> Result<i32, Fault> {
    let route = Route { source: source.to_owned(), destination: delivery.destination.clone() };
    routes.get(&route).copied().ok_or_else(|| Fault::Engine("a route is missing".into()))
}

async fn find(turn: &Transaction<'_>, wanted: &BTreeSet<Route>) -> Result<HashMap<Route, i32>, Fault> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (sources, destinations) = columns(wanted);
    let found = rows(
        turn,
        "SELECT n.place, r.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (source, destination, place)
            JOIN route AS r ON r.source = n.source AND r.destination = n.destination",
        &[&sources, &destinations],
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

fn columns(routes: &BTreeSet<Route>) -> (Vec<&str>, Vec<String>) {
    routes.iter().map(|route| (route.source.as_str(), route.destination.to_string())).unzip()
}
