//! Signature over a text of the request, made.

use super::draft::Draft;
use super::{NO_PAIR, Signer};
use crate::model::Timestamp;
use crate::verify::keys::mac::Key;
use crate::verify::request::field::Field;
use crate::verify::scheme::algorithm::AlgorithmChoice;
use crate::verify::scheme::key_material::KeyMaterial;
use crate::verify::scheme::signed::Signed;
use crate::verify::signature::Grammar;
use crate::verify::template::ContentTemplate;
use crate::verify::template::render::Context;

/// Keys of a signature list, with their values.
type Fields = Vec<(String, Vec<u8>)>;

impl Signed {
    /// Signs the item of a draft, or the whole of it.
    pub(super) fn sign(
        &self,
        by: Signer<'_>,
        draft: &mut Draft<'_>,
        now: Timestamp,
    ) -> Result<(), String> {
        let fields = self.prepare(draft, now)?;
        let secret = match (by, &self.keys) {
            (Signer::Secret(_), KeyMaterial::Public(_)) => {
                return Err("only the provider's private key can sign".into());
            }
            (Signer::Pair(_), KeyMaterial::Hmac(_) | KeyMaterial::Plain(_)) => {
                return Err(NO_PAIR.into());
            }
            (by, keys) => by.secret(keys.secrets())?,
        };
        for (a, b) in &self.equal {
            for (here, there) in [(a, b), (b, a)] {
                if let Some(field @ (Field::Query(_) | Field::Header(_))) = here.as_field() {
                    let value = there.bytes(&Context {
                        fields: &fields,
                        key: secret,
                        ..Context::new(&draft.view())
                    })?;
                    draft.put(field, &value)?;
                    break;
                }
            }
        }
        let signature = self.signature(by, draft, &fields, secret)?;
        let text = self.grammar.write(&signature, &fields);
        let text = self.grammar.places.wrapped(text.as_bytes());
        draft.put_first(&self.grammar.places, &text)
    }

    /// Writes the time and the algorithm, and makes up the values that the signed text asks for. The keys of the
    /// signature list come back.
    fn prepare(&self, draft: &mut Draft<'_>, now: Timestamp) -> Result<Fields, String> {
        let mut fields = Fields::new();
        if let Some(stamp) = &self.stamp {
            let written = stamp.window.write(now).into_bytes();
            match &stamp.from {
                Field::Signature(name) => fields.push((name.clone(), written)),
                field => draft.put(field, &written)?,
            }
        }
        if let AlgorithmChoice::Listed(from, map) = &self.algorithm
            && let Some((word, _)) = map.first()
            && !draft.has(from)?
        {
            draft.put(from, word.as_bytes())?;
        }
        let first = self.contents.iter().take(1);
        for field in first.flat_map(ContentTemplate::fields) {
            let made = format!("made-{}", now.millis());
            match field {
                Field::Signature(name) if !fields.iter().any(|(known, _)| known == name) => {
                    fields.push((name.clone(), made.into_bytes()));
                }
                Field::Header(_) | Field::Query(_) if !draft.has(field)? => {
                    draft.put(field, made.as_bytes())?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn signature(
        &self,
        by: Signer<'_>,
        draft: &Draft<'_>,
        fields: &[(String, Vec<u8>)],
        secret: Option<&Key>,
    ) -> Result<Vec<u8>, String> {
        let view = draft.view();
        let mut context = Context {
            item: draft.item_of(&view)?,
            fields,
            key: secret,
            ..Context::new(&view)
        };
        let (ts, algorithm) = self
            .time_and_algorithm(&context)
            .map_err(|(_, cause)| cause)?;
        context.ts = ts.as_deref();
        let content = self.contents.first().ok_or("nothing is signed")?;
        match (&self.keys, secret, by.pair()) {
            (KeyMaterial::Public(public), _, Some(pair)) => {
                pair.sign(public.algorithm, algorithm, &content.message(&context)?)
            }
            (keys, Some(key), _) => {
                let mut digest = keys.digest(key, algorithm);
                content.feed(&context, &mut |bytes| digest.take(bytes))?;
                Ok(digest.finish().as_bytes().to_vec())
            }
            _ => Err("there is nothing to sign with".into()),
        }
    }
}

impl Grammar {
    /// A list with one signature in it.
    fn write(&self, digest: &[u8], fields: &[(String, Vec<u8>)]) -> String {
        let signature = self.encoding.encode(digest);
        let field = |name: &str| {
            let found = fields.iter().find(|(key, _)| key == name);
            found.map_or_else(String::new, |(_, value)| {
                String::from_utf8_lossy(value).into_owned()
            })
        };
        let mut entries: Vec<String> = self.positional.iter().map(|name| field(name)).collect();
        match (&self.pair, self.select.first()) {
            (Some(pair), Some(select)) => {
                let others = fields
                    .iter()
                    .filter(|(key, _)| !self.positional.contains(key));
                entries.extend(others.map(|(key, _)| format!("{key}{pair}{}", field(key))));
                entries.push(format!("{select}{pair}{signature}"));
            }
            _ => entries.push(signature),
        }
        format!(
            "{}{}",
            self.places.prefix,
            entries.join(self.split.as_deref().unwrap_or_default())
        )
    }
}
