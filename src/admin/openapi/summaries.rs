//! One sentence for each route, and the meaning of the parts of a path.

/// Method, path and summary of each route.
pub(super) const SUMMARIES: [(&str, &str, &str); 38] = [
    (
        "get",
        "/api/v1",
        "Shows the identity and the load of the gateway.",
    ),
    (
        "get",
        "/api/v1/status",
        "Shows everything that needs an operator.",
    ),
    (
        "post",
        "/api/v1/reload",
        "Loads the configuration file again.",
    ),
    (
        "post",
        "/api/v1/pause",
        "Holds every run. New events are still accepted.",
    ),
    ("post", "/api/v1/resume", "Ends the hold on every run."),
    ("get", "/api/v1/events", "Lists events."),
    (
        "get",
        "/api/v1/events/{id}",
        "Shows an event with its deliveries.",
    ),
    (
        "get",
        "/api/v1/events/{id}/body",
        "Gives the body of an event as it was received.",
    ),
    (
        "post",
        "/api/v1/events/{id}/replay",
        "Makes a new delivery of an event.",
    ),
    (
        "post",
        "/api/v1/events/{id}/resend",
        "Makes a new event of an event and changes to it.",
    ),
    (
        "get",
        "/api/v1/replays",
        "Lists replays in bulk, the newest first.",
    ),
    ("post", "/api/v1/replays", "Starts a replay in bulk."),
    (
        "post",
        "/api/v1/replays/plan",
        "Shows what a replay in bulk would do.",
    ),
    ("get", "/api/v1/replays/{id}", "Shows a replay in bulk."),
    (
        "post",
        "/api/v1/replays/{id}",
        "Changes the state or the pace of a replay in bulk.",
    ),
    (
        "post",
        "/api/v1/deliveries/{id}/cancel",
        "Cancels a delivery that is pending or unmappable.",
    ),
    (
        "post",
        "/api/v1/deliveries/{id}/settle",
        "Sets the result of a delivery whose result is unknown.",
    ),
    ("get", "/api/v1/attachments", "Lists files."),
    ("delete", "/api/v1/attachments/{id}", "Deletes a file."),
    ("get", "/api/v1/sources", "Lists sources."),
    (
        "get",
        "/api/v1/sources/{name}/enrol",
        "Shows a secret that waits for confirmation.",
    ),
    (
        "post",
        "/api/v1/sources/{name}/enrol",
        "Opens a window in which the provider can hand over a secret.",
    ),
    (
        "post",
        "/api/v1/sources/{name}/enrol/confirm",
        "Confirms a secret.",
    ),
    (
        "get",
        "/api/v1/sources/{name}/secrets",
        "Lists the secrets of a source by their names.",
    ),
    (
        "post",
        "/api/v1/sources/{name}/reconcile",
        "Reads the provider's log and accepts the events that are missing.",
    ),
    (
        "post",
        "/api/v1/sources/{name}/pause",
        "Holds the deliveries of a source.",
    ),
    (
        "post",
        "/api/v1/sources/{name}/resume",
        "Ends the hold on a source.",
    ),
    ("get", "/api/v1/destinations", "Lists destinations."),
    (
        "post",
        "/api/v1/destinations/{kind}/{id}/pause",
        "Holds the deliveries to a destination.",
    ),
    (
        "post",
        "/api/v1/destinations/{kind}/{id}/resume",
        "Ends the hold on a destination.",
    ),
    (
        "post",
        "/api/v1/destinations/{kind}/{id}/reset",
        "Closes the breaker of a destination in this process.",
    ),
    (
        "get",
        "/api/v1/refused",
        "Lists refused requests, the newest first.",
    ),
    ("get", "/api/v1/refused/{id}", "Shows a refused request."),
    (
        "get",
        "/api/v1/budgets",
        "Lists the budgets of runs that were used today.",
    ),
    (
        "get",
        "/api/v1/keys",
        "Lists the gateway's own keys by their names.",
    ),
    (
        "get",
        "/api/v1/metrics",
        "Gives the metrics in the Prometheus text format.",
    ),
    ("get", "/api/v1/health/live", "Answers if the process runs."),
    (
        "get",
        "/api/v1/health/ready",
        "Answers if the process accepts events.",
    ),
];

/// The summary of a route.
pub(super) fn of(method: &str, path: &str) -> Option<&'static str> {
    SUMMARIES
        .iter()
        .find(|(of_method, of_path, _)| (*of_method, *of_path) == (method, path))
        .map(|(_, _, summary)| *summary)
}

/// The meaning of a part of a path.
pub(super) fn path_part(path: &str, name: &str) -> &'static str {
    match name {
        "name" => "Name of the source.",
        "kind" => "Kind of the destination: `agent` or `workflow`.",
        _ if path.contains("/replays/") => "Number of the replay.",
        _ if path.contains("/attachments/") => "Id of the file.",
        _ if path.contains("/destinations/") => {
            "Id of the destination, or a beginning that only one has."
        }
        _ if path.contains("/deliveries/") => {
            "Id of the delivery, or a beginning that only one has."
        }
        _ if path.contains("/refused/") => "Id of the request, or a beginning that only one has.",
        _ => "Id of the event, or a beginning that only one has.",
    }
}
