//! `[attachments]`, and what a source says of the files it takes, as written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::node::Value;
use super::problem::{Located, Place};
use super::secret::Secret;
use super::section::Section;

/// `[attachments]`
#[derive(Clone, Debug)]
pub struct Attachments {
    /// The store of files.
    pub store: Located<StorePlace>,
    /// Settings of a bucket, by the names that its kind of store has for them.
    pub settings: Vec<(String, Secret)>,
    /// A file with certificates that a bucket's server may have, besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Whose links the agent gets.
    pub links: LinkKind,
    /// The time for which a link is valid.
    pub link_lifetime: Duration,
    /// The time for which a file is kept that nothing refers to.
    pub keep: Duration,
    /// The largest number of uploads that are received at once.
    pub uploads: usize,
    /// The longest time for an upload.
    pub upload_timeout: Duration,
    /// The files that are accepted where a source does not say.
    pub intake: FileRules,
}

/// The store of files, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// Nowhere: no files are taken.
    None,
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket, by its address.
    Bucket(String),
}

/// Whose links the agent gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The store's own where it has some, else the gateway's.
    Auto,
    /// The gateway's.
    Gateway,
    /// The store's own.
    Store,
}

/// The files that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRules {
    /// Types (`application/pdf`, `image/*`) and ends of names (`.csv`); empty takes all.
    pub accept: Vec<String>,
    /// The largest file.
    pub max_file: u64,
    /// The most files.
    pub max_files: usize,
    /// The largest body with files in it.
    pub max_upload: u64,
}

/// `[sources.NAME.files]`
#[derive(Clone, Debug, Default)]
pub struct SourceFiles {
    /// True if a body that is not a form is itself a file.
    pub body_is_file: bool,
    /// The way to fetch files that the payload only names; `None` where they are not fetched.
    pub fetch: Option<SourceFetch>,
    accept: Option<Vec<String>>,
    max_file: Option<u64>,
    max_files: Option<usize>,
    max_upload: Option<u64>,
}

/// The `fetch` table of a source's `files`.
#[derive(Clone, Debug)]
pub struct SourceFetch {
    /// The place in the file where it begins.
    pub place: Place,
    /// The token that is sent with a request. `None` only where that is reported as a problem already.
    pub token: Option<Secret>,
    /// The host, where it is not the one of the provider file.
    pub api: Option<Uri>,
}

impl Attachments {
    /// Settings of this section that are read at the start only. All others hold from a reload on.
    /// A name that ends with a dot stands for a whole table.
    pub const AT_START: &[&str] = &["ca_file", "settings.", "store", "uploads"];

    pub(super) fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let store = section
            .text("store")
            .and_then(|text| store(section, &text, base));
        let settings = section
            .section("settings")
            .map(|table| settings(&table, base))
            .unwrap_or_default();
        let ca_file = section
            .text("ca_file")
            .filter(|file| !file.is_empty())
            .map(|file| base.join(&file.value));
        let links = section.one_of(
            "links",
            &[
                ("auto", LinkKind::Auto),
                ("gateway", LinkKind::Gateway),
                ("store", LinkKind::Store),
            ],
        );
        if let (
            Some(Located {
                value: StorePlace::Folder(_),
                ..
            }),
            Some(links),
        ) = (&store, &links)
            && links.value == LinkKind::Store
        {
            section.problems().error_hint(
                &links.place,
                "a folder gives no links of its own",
                "leave attachments.links out: then the gateway serves the files itself",
            );
        }
        let link_lifetime = section.duration("link_lifetime");
        let (keep, upload_timeout) = (section.duration("keep"), section.duration("upload_timeout"));
        let uploads = super::size(section, "uploads");
        let (max_file, max_upload) = (section.bytes("max_file"), section.bytes("max_upload"));
        let max_files = super::size(section, "max_files");
        let accept = accept(section).unwrap_or_default();
        Some(Self {
            store: store?,
            settings,
            ca_file,
            links: links?.value,
            link_lifetime: link_lifetime?.value,
            keep: keep?.value,
            uploads: uploads?,
            upload_timeout: upload_timeout?.value,
            intake: FileRules {
                accept,
                max_file: max_file?.value,
                max_files: max_files?,
                max_upload: max_upload?.value,
            },
        })
    }
}

impl SourceFetch {
    pub(super) fn read(section: &Section<'_>, base: &Path) -> Self {
        if !section.has("token") {
            section.problems().error_hint(
                section.place(),
                format!("{} is missing", section.path("token")),
                "token = \"env:NAME\" is what the channel wants to be shown for its files",
            );
        }
        let fits = |token: &Secret| {
            token.expose_text().is_some() && HeaderValue::from_bytes(token.expose()).is_ok()
        };
        let token = section.secret("token", base);
        if token.as_ref().is_some_and(|token| !fits(token)) {
            section.problems().error_hint(
                section.place(),
                format!("{} cannot stand in a header", section.path("token")),
                "it has a line break or a control character in it; copy it again",
            );
        }
        Self {
            place: section.place().clone(),
            token: token.filter(fits),
            api: section.api("api"),
        }
    }
}

impl FileRules {
    /// True if a file of this name and type is accepted.
    pub fn accepts(&self, name: &str, content_type: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.accept.is_empty()
            || self
                .accept
                .iter()
                .any(|wanted| match wanted.strip_suffix("/*") {
                    Some(kind) => content_type
                        .split_once('/')
                        .is_some_and(|(own, _)| own == kind),
                    None if wanted.starts_with('.') => name.ends_with(wanted.as_str()),
                    None => wanted == content_type,
                })
    }

    /// The same, with what a source says of its own.
    pub fn of(&self, source: &SourceFiles) -> Self {
        Self {
            accept: source.accept.clone().unwrap_or_else(|| self.accept.clone()),
            max_file: source.max_file.unwrap_or(self.max_file),
            max_files: source.max_files.unwrap_or(self.max_files),
            max_upload: source.max_upload.unwrap_or(self.max_upload),
        }
    }
}

impl SourceFiles {
    /// Reads `files`, which is true or a table; none where the source takes no files.
    pub(super) fn read(source: &Section<'_>, base: &Path) -> Option<Self> {
        match source.node("files").map(|node| &node.value) {
            None | Some(Value::Bool(false)) => return None,
            Some(Value::Bool(true)) => return Some(Self::default()),
            Some(_) => {}
        }
        let section = source.section("files")?;
        let body = section.one_of("body", &[("form", false), ("file", true)]);
        Some(Self {
            body_is_file: body.is_some_and(|body| body.value),
            fetch: section
                .section("fetch")
                .map(|fetch| SourceFetch::read(&fetch, base)),
            accept: accept(&section),
            max_file: section.bytes("max_file").map(|size| size.value),
            max_files: super::size(&section, "max_files"),
            max_upload: section.bytes("max_upload").map(|size| size.value),
        })
    }
}

fn accept(section: &Section<'_>) -> Option<Vec<String>> {
    let written = section.texts("accept")?;
    for text in &written {
        let whole = text
            .split_once('/')
            .is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
        let is_end = text.starts_with('.') && text.len() > 1;
        if !whole && !is_end {
            section.problems().error_hint(
                &text.place,
                format!("{} names no kind of file: \"{}\"", section.path("accept"), text.escape_debug()),
                "write a type like \"application/pdf\" or \"image/*\", or the end of a name like \".csv\"",
            );
        }
    }
    Some(
        written
            .into_iter()
            .map(|text| text.value.to_ascii_lowercase())
            .collect(),
    )
}

fn store(
    section: &Section<'_>,
    written: &Located<String>,
    base: &Path,
) -> Option<Located<StorePlace>> {
    if super::address::has_login(written) {
        section.problems().error_hint(
            &written.place,
            format!("{} has a name or a password in it", section.path("store")),
            "put them into [attachments.settings], for example access_key_id and secret_access_key = \"env:NAME\"",
        );
        return None;
    }
    let place = match written.split_once(':') {
        None if written.is_empty() => StorePlace::None,
        Some(("file", folder)) if !folder.is_empty() => StorePlace::Folder(base.join(folder)),
        Some(("s3" | "gs" | "az", rest))
            if rest
                .strip_prefix("//")
                .is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty()) =>
        {
            StorePlace::Bucket(written.value.clone())
        }
        _ => {
            section.problems().error_hint(
                &written.place,
                format!("{} names no store", section.path("store")),
                "write \"file:\" and a folder, for example \"file:data/files\", or \"s3://bucket/prefix\", \"gs://…\", \"az://…\"; \"\" takes no files",
            );
            return None;
        }
    };
    Some(Located {
        value: place,
        place: written.place.clone(),
    })
}

/// Settings of a bucket. Any of them may be a secret; others are written as they are.
fn settings(table: &Section<'_>, base: &Path) -> Vec<(String, Secret)> {
    let keys: Vec<String> = table.keys().map(|(key, _)| key.to_owned()).collect();
    let mut all = Vec::new();
    for key in keys {
        let Some(text) = table.text(&key) else {
            continue;
        };
        if super::address::has_login(&text) {
            table.problems().error_hint(
                &text.place,
                format!("{} has a name or a password in it", table.path(&key)),
                "write the address alone; what the store wants to see has settings of its own",
            );
        }
        let is_secret = ["env:", "file:", "literal:"]
            .iter()
            .any(|start| text.starts_with(start));
        let value = match is_secret {
            true => table.secret(&key, base),
            false => Some(Secret::new(table.path(&key), text.value)),
        };
        all.extend(value.map(|value| (key, value)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_by_its_type_or_by_the_end_of_its_name() {
        let of = |accept: &[&str]| FileRules {
            accept: accept.iter().map(|text| (*text).to_owned()).collect(),
            max_file: 1,
            max_files: 1,
            max_upload: 1,
        };
        for (accept, name, kind, wanted) in [
            (&[][..], "x", "a/b", true),
            (&["application/pdf"], "x", "application/pdf", true),
            (
                &["application/pdf"],
                "x.pdf",
                "application/octet-stream",
                false,
            ),
            (&["image/*"], "x", "image/png", true),
            (&["image/*"], "x", "imagex/png", false),
            (&[".csv"], "A.CSV", "text/plain", true),
            (&[".csv"], "csv", "text/csv", false),
        ] {
            assert_eq!(
                of(accept).accepts(name, kind),
                wanted,
                "{accept:?} {name} {kind}"
            );
        }
    }
}
