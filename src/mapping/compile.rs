//! Compilation of a source's mapping over the mapping of its provider.

use super::each::ItemLists;
use super::filter::{SenderFilter, TypeFilter};
use super::kind::Kinds;
use super::path::{Path, Paths};
use super::template::{Reach, Template, TemplateUse};
use super::thread::{KeySources, Thread};
use super::{MappedPath, Mapping, Rule, types};
use crate::config::{Located, Problems, Provider, SourceConfig};
use crate::json::Dotted;
use crate::model::{Marks, Name};

impl Mapping {
    /// Compiles a source's mapping over its provider's. `event_id` and `event_type` are the sources that the `[verify]`
    /// section names. Mistakes are reported to `problems`.
    pub fn compile(
        source: &SourceConfig,
        provider: Option<&Provider>,
        event_id: &[Located<String>],
        event_type: &[Located<String>],
        problems: &Problems,
    ) -> Option<Self> {
        let below = provider.map(|provider| &provider.map);
        let strict = source.strict_template;
        let mut paths = Paths::default();
        let mut params = ParamRules::new(source, provider, &mut paths, problems);
        params.add_paths(provider, &mut paths);
        params.add_fixed();
        params.add_defaults();
        params.prefer_prompt_template();

        let own = source.map.prompt.as_ref();
        let prompt =
            own.map(|written| Template::compile(TemplateUse::Prompt, written, strict, problems));
        // A provider's template is for every kind of its events, so a missing value prints nothing.
        let usual = below
            .and_then(|map| map.prompt.as_ref())
            .filter(|_| own.is_none());
        let usual =
            usual.map(|written| Template::compile(TemplateUse::Prompt, written, false, problems));
        let thread = threads(source, provider, &mut paths, problems);
        let senders = match provider {
            Some(provider) if source.sender.is_empty() => &provider.sender,
            _ => &source.sender,
        };
        let senders = SenderFilter::compile(&source.not_senders, senders, &mut paths, problems);
        let when = source
            .when
            .as_ref()
            .map(|written| Template::compile(TemplateUse::When, written, strict, problems));
        let each = source.map.each.as_ref();
        let each = each.or(below.and_then(|map| map.each.as_ref()));
        let each = ItemLists::compile(each.map_or(&[][..], Vec::as_slice), problems);
        let kinds = Kinds::compile(provider, source.humans_only, &mut paths, problems);
        let mut mapping = Self {
            query: source.query,
            each: each?,
            kinds: kinds?,
            reach: Reach::NOTHING,
            marks: Marks::default(),
            params: params.rules,
            event_id: KeySources::compile(event_id, &mut paths, problems),
            event_type: KeySources::compile(event_type, &mut paths, problems),
            events: TypeFilter::compile(&source.events, &source.not_events, problems),
            senders,
            paths,
            prompt: compiled_or_absent(prompt)?,
            usual: compiled_or_absent(usual)?,
            usual_thread: source.map.thread.is_empty(),
            thread: thread.into_iter().collect::<Option<_>>()?,
            when: compiled_or_absent(when)?,
        };
        types::doubt(source, provider, event_type, problems);
        mapping.find_reach();
        params.is_sound.then_some(mapping)
    }

    /// Finds the parts of a request that the templates use.
    fn find_reach(&mut self) {
        let threads = self.thread.iter().filter_map(Thread::template);
        let others = [
            self.prompt.as_ref(),
            self.usual.as_ref(),
            self.when.as_ref(),
        ];
        for template in threads.chain(others.into_iter().flatten()) {
            template.reach(&mut self.reach);
        }
        self.reach.find(&mut self.paths);
    }
}

/// A template that was written has to compile: its mistake was reported, and there is no mapping without it.
fn compiled_or_absent(template: Option<Option<Template>>) -> Option<Option<Template>> {
    template.map_or(Some(None), |compiled| compiled.map(Some))
}

/// Compiles the places of the thread: the source's own, or else the provider's.
fn threads(
    source: &SourceConfig,
    provider: Option<&Provider>,
    paths: &mut Paths,
    problems: &Problems,
) -> Vec<Option<Thread>> {
    let is_usual = source.map.thread.is_empty();
    let written = match provider {
        Some(provider) if is_usual => &provider.map.thread,
        _ => &source.map.thread,
    };
    // Of several places, one that prints a missing value leaves the thread to the next place.
    let strict = source.strict_template && !is_usual || written.len() > 1;
    written
        .iter()
        .map(|written| Thread::compile(written, strict, paths, problems))
        .collect()
}

/// Rules of the parameters while they are compiled.
struct ParamRules<'c> {
    source: &'c SourceConfig,
    problems: &'c Problems,
    rules: Vec<Rule>,
    is_sound: bool,
}

impl<'c> ParamRules<'c> {
    fn new(
        source: &'c SourceConfig,
        provider: Option<&Provider>,
        paths: &mut Paths,
        problems: &'c Problems,
    ) -> Self {
        let implicit = source
            .implicit
            .unwrap_or_else(|| provider.is_none_or(|provider| provider.implicit));
        let rules = Name::ALL.into_iter().map(|name| Rule {
            name,
            mapped: None,
            own: implicit.then(|| paths.add(Dotted::of_key(name.as_str()))),
            fixed: None,
            default: None,
        });
        Self {
            source,
            problems,
            rules: rules.collect(),
            is_sound: true,
        }
    }

    /// Adds the paths of `params_mapping`: the provider's first, and the source's over them.
    fn add_paths(&mut self, provider: Option<&Provider>, paths: &mut Paths) {
        let provided = provider.map_or(&[][..], |provider| &provider.map.params_mapping);
        let provided = provided.iter().map(|pair| (pair, true));
        let own = self.source.map.params_mapping.iter();
        let own = own.map(|pair| (pair, false));
        for ((target, path), shipped) in provided.chain(own) {
            let rule = rule(&mut self.rules, target, "params_mapping", self.problems);
            let compiled = Path::compile(path, paths, self.problems);
            self.is_sound &= rule.is_some() && compiled.is_some();
            if let (Some(rule), Some(compiled)) = (rule, compiled) {
                rule.mapped = Some(MappedPath {
                    written: path.value.clone(),
                    path: compiled,
                    shipped,
                });
            }
        }
    }

    /// Adds the fixed values, and warns of settings that a fixed value makes useless.
    fn add_fixed(&mut self) {
        let source = self.source;
        for (target, value) in &source.fixed {
            let own = source
                .map
                .params_mapping
                .iter()
                .chain(&source.defaults)
                .any(|(name, _)| name.value == target.value);
            if own || (target.value == Name::Prompt.as_str() && source.map.prompt.is_some()) {
                self.problems.warn(
                    &target.place,
                    format!(
                        "{} is fixed, so what else the source says of it counts for nothing",
                        target.value
                    ),
                    "remove it from fixed, or from params_mapping, prompt and defaults",
                );
            }
            match rule(&mut self.rules, target, "fixed", self.problems) {
                Some(rule) => {
                    rule.fixed = Some(value.value.clone()).filter(|value| !value.is_empty())
                }
                None => self.is_sound = false,
            }
        }
    }

    /// Adds the default values.
    fn add_defaults(&mut self) {
        for (target, value) in &self.source.defaults {
            match rule(&mut self.rules, target, "defaults", self.problems) {
                Some(rule) => {
                    rule.default = Some(value.value.clone()).filter(|value| !value.is_empty())
                }
                None => self.is_sound = false,
            }
        }
    }

    /// Lets the operator's prompt template take the place of the provider's path for the prompt.
    fn prefer_prompt_template(&mut self) {
        let Some(template) = &self.source.map.prompt else {
            return;
        };
        let mut own = self.source.map.params_mapping.iter();
        if own.any(|(target, _)| target.value == Name::Prompt.as_str()) {
            self.problems.warn(
                &template.place,
                "params_mapping maps prompt as well, and goes before this template",
                "remove one of the two unless the template is meant for events without the mapped value",
            );
        } else if let Some(rule) = self.rules.iter_mut().find(|rule| rule.name == Name::Prompt) {
            rule.mapped = None;
        }
    }
}

/// Finds the rule of a parameter by its name. An unknown name is reported to `problems`.
fn rule<'r>(
    params: &'r mut [Rule],
    target: &Located<String>,
    table: &str,
    problems: &Problems,
) -> Option<&'r mut Rule> {
    let found = params
        .iter_mut()
        .find(|rule| rule.name.as_str() == target.value);
    if found.is_none() {
        problems.error_hint(
            &target.place,
            format!("{table}: there is no parameter {:?}", target.value),
            format!(
                "the parameters are {}",
                Name::ALL.map(Name::as_str).join(", ")
            ),
        );
    }
    found
}
