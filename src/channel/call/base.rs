//! Addresses that come with an event: only those of hosts that the file lists.

use http::Uri;

use crate::channel::spec::HostPattern;

/// The address without a slash at its end, if it is one of the channel's own: HTTPS, a listed host, the usual port, no user,
/// and a path that leads only downwards.
pub(super) fn checked(text: &str, hosts: &[HostPattern]) -> Option<String> {
    if text.contains(['#', '\\']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let host = uri.host()?;
    let is_own = uri.scheme_str() == Some("https")
        && !authority.contains('@')
        && matches!(uri.port_u16(), None | Some(443))
        && hosts.iter().any(|known| known.fits(host));
    let leads_up = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(plain.as_str(), "." | "..")
    };
    let is_straight = !uri.path().split('/').any(leads_up);
    (is_own && is_straight).then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_listed_hosts_are_taken() {
        let hosts = [
            HostPattern::Exact("hooks.example.com".into()),
            HostPattern::Below("bots.example.net".into()),
        ];
        let good = |text: &str| checked(text, &hosts);
        assert_eq!(
            good("https://hooks.example.com/a/b/").as_deref(),
            Some("https://hooks.example.com/a/b")
        );
        assert!(good("https://EU.bots.example.net/x?y=1").is_some());
        for bad in [
            "http://hooks.example.com/a",
            "https://hooks.example.com.evil.net/a",
            "https://evilbots.example.net/",
            "https://bots.example.net/",
            "https://hooks.example.com@evil.net/",
            "https://evil.net/?hooks.example.com",
            "https://hooks.example.com:8443/",
            "https://user@hooks.example.com/",
            "https://hooks.example.com/../x",
            "https://hooks.example.com/%2E%2e/x",
            "https://hooks.example.com\\@evil.net/",
            "https://hooks.example.com/a#b",
            "//hooks.example.com/a",
            "hooks.example.com",
            "https://169.254.169.254/",
            "",
        ] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }
}
