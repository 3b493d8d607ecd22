//! What is wrong with a configured source, as its operator reads it.

use std::path::Path;

use crate::config::{Config, Problems};
use crate::verify::compile_source;

#[test]
fn an_unknown_provider_is_named_with_its_nearest() {
    let problems = Problems::default();
    let text = "[sources.a]\nprovider = 'githib'\nagent = 'a'\n[sources.b]\nprovider = 'custom'\nagent = 'a'\n";
    let config = Config::parse(
        "c.toml",
        text,
        Path::new("."),
        std::iter::empty(),
        &problems,
    )
    .unwrap();
    for source in &config.sources {
        assert!(crate::source::compile::provider(source, &config, &problems).is_none());
        assert!(matches!(
            compile_source(source, None, true, &problems),
            (None, None)
        ));
    }
    let list: Vec<String> = problems
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(list.len(), 2, "{list:#?}");
    assert!(
        list[0].starts_with("c.toml:2") && list[0].contains("did you mean github?"),
        "{list:#?}"
    );
    assert!(
        list[1].starts_with("c.toml:5") && list[1].contains("needs a verify table"),
        "{list:#?}"
    );
}
