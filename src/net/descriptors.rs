//! Limit on descriptors of the process. Connections never get the last of them: the inbox, the upstream and the operator
//! need some too.

/// Descriptors kept for everything except connections of the public listener.
const RESERVE: usize = 64;

/// Raises the limit as far as it may be raised, and says how many connections there is room for.
pub fn room_for_connections(wanted: usize) -> usize {
    let limit = raised();
    let room = limit.saturating_sub(RESERVE).max(1);
    if room < wanted {
        tracing::warn!(
            max_connections = wanted,
            descriptors = limit,
            room,
            "fewer descriptors than server.max_connections wants; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    room.min(wanted)
}

#[cfg(unix)]
fn raised() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = if current == maximum
        || setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .is_err()
    {
        current
    } else {
        maximum
    };
    soft.map_or(usize::MAX, |soft| {
        usize::try_from(soft).unwrap_or(usize::MAX)
    })
}

#[cfg(not(unix))]
const fn raised() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f7_the_reserve_is_not_given_to_connections() {
        assert_eq!(room_for_connections(1), 1);
        let all = room_for_connections(usize::MAX);
        let limit = raised();
        assert!(
            all == limit - RESERVE || limit == usize::MAX,
            "{all} of {limit}"
        );
    }
}
