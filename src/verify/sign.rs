//! A scheme run backwards: signs a request the way its provider would, for the demo, for tests and for trying out.
//!
//! Wherever a signature can be found it can be put: in headers, the query, the form, the document. What a signed text
//! asks for and the request has not, such as an id in a header, is made up.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as Tree};

use super::content::{ContentTemplate, Context};
use super::document::{self, Json};
use super::field::{DocumentPlace, Field, RequestView};
use super::keys::jwt::{self, Jwt};
use super::keys::mac::{Key, RunningDigest};
use super::keys::pair::KeyPair;
use super::keys::public::{PublicKeyAlgorithm, PublicKeyEncoding};
use super::scheme::{AlgorithmChoice, KeyMaterial, Mechanism, Scheme, Signed, SignedItems};
use super::signature::{Grammar, SignaturePlace, SignaturePlaces};
use crate::model::{Received, Timestamp, Verify as _};

/// With what a request is signed.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'k> {
    /// The secret of this number, from 0.
    Secret(usize),
    /// A key pair.
    Pair(&'k KeyPair),
}

impl Scheme {
    /// The headers that make a request this provider's, with the secret of this number. An error says why it cannot be
    /// done with headers alone.
    pub fn sign(
        &self,
        secret: usize,
        request: &Received,
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let signed = self.signed(Signer::Secret(secret), request, now)?;
        if signed.body != request.body || signed.target != request.target {
            return Err("this signature does not stand in a header".into());
        }
        let new = signed
            .headers
            .iter()
            .filter(|(name, value)| request.headers.get(*name) != Some(*value));
        Ok(new
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    /// The request as this provider would send it. An error says why it cannot be done.
    pub fn signed(
        &self,
        by: Signer<'_>,
        request: &Received,
        now: Timestamp,
    ) -> Result<Received, String> {
        let mut request = request.clone();
        let way = self
            .way(&RequestView::new(&request, &self.document))
            .map_err(|(_, cause)| cause)?;
        let key = |keys: &[Key]| -> Result<Vec<u8>, String> {
            let Signer::Secret(number) = by else {
                return Err("this scheme has a shared secret and no key pair".into());
            };
            let key = keys
                .get(number)
                .ok_or_else(|| format!("there is no secret number {}", number + 1))?;
            Ok(key.expose().to_vec())
        };
        match way {
            // What the service wants to see, only the operator knows.
            Mechanism::Open | Mechanism::Ask(_) => {}
            Mechanism::Basic(basic) => {
                let value = format!("Basic {}", BASE64_STANDARD.encode(key(&basic.keys)?));
                request
                    .headers
                    .insert(AUTHORIZATION, header_value(value.as_bytes())?);
            }
            Mechanism::Token(token, each) => {
                let shown = [token.places.prefix.as_bytes(), &key(&token.keys)?].concat();
                let value = token.places.wrapped(&shown);
                for item in items(each.as_ref(), &request, &self.document)? {
                    put_first(&mut request, &self.document, &token.places, &item, &value)?;
                }
            }
            Mechanism::Signed(signed) => {
                for item in items(signed.each.as_ref(), &request, &self.document)? {
                    signed.sign(by, &mut request, &self.document, &item, now)?;
                }
            }
            Mechanism::Jwt(jwt) => jwt.sign(by, &mut request, &self.document, now)?,
        }
        // A signature inside of what it covers cannot be made; better said here than found out by the receiver.
        // Of what another service judges, only a running gateway can tell.
        if matches!(by, Signer::Secret(_)) && !matches!(way, Mechanism::Ask(_)) {
            self.judge(&request, now)
                .map_err(|refusal| format!("it cannot be signed so: {}", refusal.cause()))?;
        }
        Ok(request)
    }

    /// The way to sign with a key pair, and how the public key is written; none for schemes with a shared secret.
    pub(crate) fn pair(&self) -> Option<(PublicKeyAlgorithm, PublicKeyEncoding)> {
        match &self.base {
            Mechanism::Signed(signed) => match &signed.prove {
                KeyMaterial::Public { kind, notation, .. } => Some((*kind, *notation)),
                _ => None,
            },
            Mechanism::Jwt(jwt) if jwt.keys.is_empty() => {
                jwt.ways.iter().find_map(|(_, way)| match way {
                    jwt::JwtAlgorithm::Pair(kind, _) => Some((*kind, jwt.notation)),
                    jwt::JwtAlgorithm::Hmac(_) => None,
                })
            }
            _ => None,
        }
    }

    /// Whether it has a key pair and no shared secret.
    pub fn has_key_pair(&self) -> bool {
        self.pair().is_some()
    }

    /// The kind of private key that signs for it, in words; None where it has a shared secret.
    pub fn private_key(&self) -> Option<&'static str> {
        self.pair().map(|(kind, _)| kind.private_key())
    }

    /// Makes a key pair for it.
    pub fn make_pair(&self) -> Result<KeyPair, String> {
        let (kind, _) = self
            .pair()
            .ok_or("this scheme has a shared secret and no key pair")?;
        KeyPair::make(kind)
    }

    /// The public key of a pair, as this provider would show it.
    pub fn public_key(&self, pair: &KeyPair, now: Timestamp) -> Result<String, String> {
        let (_, notation) = self
            .pair()
            .ok_or("this scheme has a shared secret and no key pair")?;
        pair.public(notation, now)
    }
}

/// The paths of the items that are signed one by one; the empty path for a request that is signed as a whole.
fn items(
    each: Option<&SignedItems>,
    request: &Received,
    document: &DocumentPlace,
) -> Result<Vec<Vec<String>>, String> {
    let Some(each) = each else {
        return Ok(vec![Vec::new()]);
    };
    let request = RequestView::new(request, document);
    let Some(Json::List(list)) = request.json()?.at(&each.list) else {
        return Err("the body has not the list whose items are signed".into());
    };
    Ok((0..list.len())
        .map(|at| [each.list.clone(), vec![at.to_string()], each.rest.clone()].concat())
        .collect())
}

impl Signed {
    fn sign(
        &self,
        by: Signer<'_>,
        request: &mut Received,
        document: &DocumentPlace,
        item: &[String],
        now: Timestamp,
    ) -> Result<(), String> {
        let mut fields = Vec::new();
        if let Some(stamp) = &self.stamp {
            let written = stamp.window.write(now).into_bytes();
            match &stamp.from {
                Field::Signature(name) => fields.push((name.clone(), written)),
                field => put(request, document, field, item, &written)?,
            }
        }
        if let AlgorithmChoice::Listed(from, map) = &self.algorithm
            && let Some((word, _)) = map.first()
            && !has(request, document, from, item)?
        {
            put(request, document, from, item, word.as_bytes())?;
        }
        for field in self
            .contents
            .iter()
            .take(1)
            .flat_map(ContentTemplate::fields)
        {
            let made = format!("made-{}", now.millis());
            match field {
                Field::Signature(name) if !fields.iter().any(|(known, _)| known == name) => {
                    fields.push((name.clone(), made.into_bytes()));
                }
                Field::Header(_) | Field::Query(_) if !has(request, document, field, item)? => {
                    put(request, document, field, item, made.as_bytes())?;
                }
                _ => {}
            }
        }
        let secret = match (by, &self.prove) {
            (Signer::Secret(number), KeyMaterial::Hmac(keys) | KeyMaterial::Plain(keys)) => Some(
                keys.get(number)
                    .ok_or_else(|| format!("there is no secret number {}", number + 1))?,
            ),
            (Signer::Secret(_), KeyMaterial::Public { .. }) => {
                return Err("only the provider's private key can sign".into());
            }
            (Signer::Pair(_), KeyMaterial::Public { .. }) => None,
            (Signer::Pair(_), _) => {
                return Err("this scheme has a shared secret and no key pair".into());
            }
        };
        for (a, b) in &self.equal {
            for (here, there) in [(a, b), (b, a)] {
                if let Some(field @ (Field::Query(_) | Field::Header(_))) = here.as_field() {
                    let looked = &RequestView::new(request, document);
                    let context = Context {
                        request: looked,
                        item: None,
                        fields: &fields,
                        ts: None,
                        key: secret,
                    };
                    let value = there.bytes(&context)?;
                    put(request, document, field, item, &value)?;
                    break;
                }
            }
        }
        let text = {
            let looked = RequestView::new(request, document);
            let inner = if item.is_empty() {
                None
            } else {
                looked.json()?.at(item)
            };
            let mut context = Context {
                request: &looked,
                item: inner,
                fields: &fields,
                ts: None,
                key: secret,
            };
            let ts = self.time(&context).map_err(|(_, cause)| cause)?;
            context.ts = ts.as_deref();
            let algorithm = self.algorithm.of(&context).map_err(|(_, cause)| cause)?;
            let content = self.contents.first().ok_or("nothing is signed")?;
            let signature = match (&self.prove, secret, by) {
                (KeyMaterial::Public { kind, .. }, _, Signer::Pair(pair)) => {
                    pair.sign(*kind, algorithm, &content.message(&context)?)?
                }
                (prove, Some(key), _) => {
                    let keyed = matches!(prove, KeyMaterial::Hmac(_));
                    let mut digest = if keyed {
                        key.hmac(algorithm)
                    } else {
                        RunningDigest::plain(algorithm)
                    };
                    content.feed(&context, &mut |bytes| digest.take(bytes))?;
                    digest.finish().as_bytes().to_vec()
                }
                _ => return Err("there is nothing to sign with".into()),
            };
            self.grammar
                .places
                .wrapped(self.grammar.write(&signature, &fields).as_bytes())
        };
        put_first(request, document, &self.grammar.places, item, &text)
    }
}

impl Jwt {
    fn sign(
        &self,
        by: Signer<'_>,
        request: &mut Received,
        document: &DocumentPlace,
        now: Timestamp,
    ) -> Result<(), String> {
        let (name, way) = match by {
            Signer::Secret(_) => self
                .ways
                .iter()
                .find(|(_, way)| matches!(way, jwt::JwtAlgorithm::Hmac(_))),
            Signer::Pair(_) => self
                .ways
                .iter()
                .find(|(_, way)| matches!(way, jwt::JwtAlgorithm::Pair(..))),
        }
        .ok_or("tokens of this scheme are not signed so")?;
        let secret = match by {
            Signer::Secret(number) => Some(
                self.keys
                    .get(number)
                    .ok_or_else(|| format!("there is no secret number {}", number + 1))?,
            ),
            Signer::Pair(_) => None,
        };
        let token = {
            let looked = RequestView::new(request, document);
            let context = Context {
                request: &looked,
                item: None,
                fields: &[],
                ts: None,
                key: secret,
            };
            let mut head = Map::new();
            head.insert("alg".into(), (*name).into());
            head.insert("typ".into(), "JWT".into());
            let kid = self
                .kid
                .as_ref()
                .map(|kid| kid.bytes(&context))
                .transpose()?;
            let known = self.public.iter().find_map(|key| key.kid.clone());
            if let Some(kid) = kid
                .map(|kid| String::from_utf8_lossy(&kid).into_owned())
                .or(known)
            {
                head.insert("kid".into(), kid.into());
            }
            let whole = matches!(
                self.places.list.as_slice(),
                [SignaturePlace::Field(Field::Body)]
            );
            let payload = if self.detached {
                request.body.to_vec()
            } else {
                // Where the token is the body, what was to be sent are the claims.
                let mut claims = match serde_json::from_slice(&request.body) {
                    Ok(Tree::Object(claims)) if whole => claims,
                    _ => Map::new(),
                };
                let seconds = now.seconds();
                claims.insert("iat".into(), seconds.into());
                claims.insert("exp".into(), (seconds + 300).into());
                for name in self
                    .required
                    .iter()
                    .filter(|name| !matches!(name.as_str(), "iat" | "exp"))
                {
                    let made = if name == "nbf" {
                        seconds.into()
                    } else {
                        format!("made-{}", now.millis()).into()
                    };
                    claims.entry(name.clone()).or_insert(made);
                }
                for (name, template) in &self.claims {
                    let value = template.bytes(&context)?;
                    claims.insert(
                        name.clone(),
                        String::from_utf8_lossy(&value).into_owned().into(),
                    );
                }
                Tree::Object(claims).to_string().into_bytes()
            };
            let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let head = encode(Tree::Object(head).to_string().as_bytes());
            let signed = format!("{head}.{}", encode(&payload));
            let signature = match (way, by, secret) {
                (jwt::JwtAlgorithm::Hmac(algorithm), _, Some(key)) => {
                    let mut mac = key.hmac(*algorithm);
                    mac.take(signed.as_bytes());
                    mac.finish().as_bytes().to_vec()
                }
                (jwt::JwtAlgorithm::Pair(kind, algorithm), Signer::Pair(pair), _) => {
                    pair.sign(*kind, *algorithm, signed.as_bytes())?
                }
                _ => return Err("there is nothing to sign with".into()),
            };
            let signed = if self.detached {
                format!("{head}.")
            } else {
                signed
            };
            self.places.wrapped(
                format!("{}{signed}.{}", self.places.prefix, encode(&signature)).as_bytes(),
            )
        };
        put_first(request, document, &self.places, &[], &token)
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

/// Whether something stands at a place.
fn has(
    request: &Received,
    document: &DocumentPlace,
    field: &Field,
    item: &[String],
) -> Result<bool, String> {
    let looked = RequestView::new(request, document);
    let inner = if item.is_empty() {
        None
    } else {
        looked.json()?.at(item)
    };
    Ok(looked
        .text(field, inner)?
        .is_some_and(|text| !text.is_empty()))
}

/// Puts a signature or a token at the first of its places.
fn put_first(
    request: &mut Received,
    document: &DocumentPlace,
    places: &SignaturePlaces,
    item: &[String],
    value: &[u8],
) -> Result<(), String> {
    match places.list.first() {
        Some(SignaturePlace::Field(field)) => put(request, document, field, item, value),
        Some(SignaturePlace::Numbered(start)) => {
            let name = HeaderName::from_bytes(format!("{start}1").as_bytes())
                .map_err(|_| "no name of a header")?;
            request.headers.insert(name, header_value(value)?);
            Ok(())
        }
        None => Err("there is no place for the signature".into()),
    }
}

/// Puts a text at a place.
fn put(
    request: &mut Received,
    document: &DocumentPlace,
    field: &Field,
    item: &[String],
    value: &[u8],
) -> Result<(), String> {
    let text = || {
        std::str::from_utf8(value)
            .map(str::to_owned)
            .map_err(|_| "the value is no text".to_owned())
    };
    match field {
        Field::Header(name) => {
            request.headers.insert(name.clone(), header_value(value)?);
        }
        Field::Query(name) => {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            let kept =
                form_urlencoded::parse(request.query().as_bytes()).filter(|(key, _)| key != name);
            let query = pairs
                .extend_pairs(kept)
                .append_pair(name, &text()?)
                .finish();
            request.target = format!("{}?{query}", request.path());
            let base = request
                .url
                .split_once('?')
                .map_or(request.url.as_str(), |(base, _)| base);
            request.url = format!("{base}?{query}");
        }
        Field::Form(name) => {
            let kind = request.header("content-type").unwrap_or_default();
            if kind.to_ascii_lowercase().starts_with("multipart/") {
                return Err("a field of a multipart form cannot be put there".into());
            }
            let kept: Vec<(String, String)> = form_urlencoded::parse(&request.body)
                .into_owned()
                .filter(|(key, _)| key != name)
                .collect();
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            request.body = pairs
                .extend_pairs(kept)
                .append_pair(name, &text()?)
                .finish()
                .into();
        }
        Field::Json(path) => {
            let range = match document {
                DocumentPlace::Body => 0..request.body.len(),
                DocumentPlace::Multipart(name) => {
                    let kind = request.header("content-type").unwrap_or_default();
                    let part = document::part(kind, &request.body, name)
                        .ok_or("the form has no such part")?;
                    let framed = [b"\r\n\r\n", &part[..], b"\r\n--"].concat();
                    let start = memchr::memmem::find(&request.body, &framed)
                        .ok_or("the form's part cannot be changed")?;
                    start + 4..start + 4 + part.len()
                }
            };
            let mut tree: Tree = serde_json::from_slice(&request.body[range.clone()])
                .map_err(|_| "the document is no JSON")?;
            let mut place = &mut tree;
            for step in item.iter().chain(path) {
                place = match place {
                    Tree::Array(list) => step
                        .parse::<usize>()
                        .ok()
                        .and_then(|number| list.get_mut(number))
                        .ok_or("a list has not that many items")?,
                    Tree::Object(entries) => entries.entry(step.clone()).or_insert(Tree::Null),
                    other => {
                        *other = Tree::Object(Map::new());
                        match other {
                            Tree::Object(entries) => {
                                entries.entry(step.clone()).or_insert(Tree::Null)
                            }
                            _ => return Err("the document has no such place".into()),
                        }
                    }
                };
            }
            let text = text()?;
            *place = match (&*place, text.parse::<i64>()) {
                (Tree::Number(_), Ok(number)) => number.into(),
                _ => text.into(),
            };
            let written = tree.to_string().into_bytes();
            request.body = [
                &request.body[..range.start],
                &written,
                &request.body[range.end..],
            ]
            .concat()
            .into();
        }
        Field::Body => request.body = value.to_vec().into(),
        Field::Signature(_) => return Err("a signature's own keys are written with it".into()),
    }
    Ok(())
}

impl SignaturePlaces {
    /// A signature inside the object that it is a member of, where it is one.
    fn wrapped(&self, text: &[u8]) -> Vec<u8> {
        let Some(member) = &self.unwrap else {
            return text.to_vec();
        };
        let inner = text.strip_prefix(self.prefix.as_bytes()).unwrap_or(text);
        let value = Tree::String(String::from_utf8_lossy(inner).into_owned());
        let object = member.iter().rev().fold(value, |inner, step| {
            let mut object = Map::new();
            object.insert(step.clone(), inner);
            Tree::Object(object)
        });
        format!(
            "{}{}",
            self.prefix,
            BASE64_STANDARD.encode(object.to_string())
        )
        .into_bytes()
    }
}

/// A value for a header; what cannot stand in one is not shown, since it may be the secret.
fn header_value(bytes: &[u8]) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(bytes)
        .map_err(|_| "the value cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
