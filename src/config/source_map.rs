//! Map of the configured sources by name, shared by every part that looks one up.

use std::collections::HashMap;
use std::iter::Map;
use std::slice;
use std::sync::Arc;

use super::source::SourceConfig;

/// The configured sources, in order of the file and by name. A clone is another handle on the same map.
#[derive(Clone, Debug, Default)]
pub struct SourceMap(Arc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    list: Vec<Arc<SourceConfig>>,
    by_name: HashMap<String, usize>,
}

/// Iterator over the sources, in order of the file.
type Iter<'m> =
    Map<slice::Iter<'m, Arc<SourceConfig>>, fn(&'m Arc<SourceConfig>) -> &'m SourceConfig>;

impl SourceMap {
    /// The source of this name.
    pub fn get(&self, name: &str) -> Option<&SourceConfig> {
        let number = self.0.by_name.get(name)?;
        self.0.list.get(*number).map(|source| &**source)
    }

    /// The sources, in order of the file.
    pub fn iter(&self) -> Iter<'_> {
        self.into_iter()
    }

    /// The sources as shared handles, in order of the file.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<SourceConfig>> {
        self.0.list.iter()
    }

    /// Number of configured sources.
    pub fn len(&self) -> usize {
        self.0.list.len()
    }

    /// True if no source is configured.
    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }
}

impl FromIterator<SourceConfig> for SourceMap {
    fn from_iter<I: IntoIterator<Item = SourceConfig>>(sources: I) -> Self {
        let list: Vec<_> = sources.into_iter().map(Arc::new).collect();
        let by_name = list
            .iter()
            .enumerate()
            .map(|(number, source)| (source.name.clone(), number))
            .collect();
        Self(Arc::new(Entries { list, by_name }))
    }
}

impl<'m> IntoIterator for &'m SourceMap {
    type Item = &'m SourceConfig;
    type IntoIter = Iter<'m>;

    fn into_iter(self) -> Iter<'m> {
        let target: fn(&'m Arc<SourceConfig>) -> &'m SourceConfig = |source| source;
        self.0.list.iter().map(target)
    }
}
