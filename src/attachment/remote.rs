//! Files in a bucket of a cloud's object store, or of a server with the same API (MinIO and others have that of S3).
//!
//! The store's client sends its requests through the gateway's HTTP client. Credentials come the usual way of each cloud:
//! from the environment, or from the machine's own identity. A large file is sent in parts while it comes in, and becomes
//! visible at the end; a small one is sent when its request was found good. Parts of uploads that a crash broke off are
//! removed by the bucket's own life-cycle rule.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, RetryConfig, WriteMultipart,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::{FileBytes, FileLabel, Sink, Store, StoreError, drawer};
use crate::model::Timestamp;
use crate::net::{Client, SendError};

/// The size of a part, and of the largest file that is sent whole: the smallest part that S3 accepts.
const PART: usize = 5 * 1024 * 1024;

/// The number of parts of a file that are sent at once.
const UNDER_WAY: usize = 2;

/// The longest time until an answer of the store begins.
const ANSWER: Duration = Duration::from_secs(60);

/// The time and the number of times that a request is tried again while the store fails.
const TRYING: Duration = Duration::from_secs(20);
const TRIES: usize = 3;

/// The longest validity of links of S3 and of Google.
const SIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Characters that are escaped in an extended header value (RFC 8187).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A bucket.
#[derive(Debug)]
pub struct Remote {
    objects: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    prefix: Path,
    longest: Option<Duration>,
}

/// The reason why a store cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RemoteError(pub String);

impl Remote {
    /// Opens a store at an address like `s3://bucket/prefix`. Its settings have the names that this kind of store gives
    /// them (`endpoint`, `region`, `access_key_id`, …) and take precedence over the environment.
    pub fn open(
        url: &str,
        settings: &[(String, String)],
        client: Client,
    ) -> Result<Self, RemoteError> {
        let wrong = |error: object_store::Error| RemoteError(format!("{url}: {error}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| RemoteError(format!("{url} is not an address")))?;
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        let prefix = Path::parse(prefix.trim_matches('/'))
            .map_err(|error| RemoteError(error.to_string()))?;
        // The gateway's client has its own time-outs and trust; plain HTTP is used where an endpoint says so.
        let options = ClientOptions::new().with_allow_http(true);
        let retry = RetryConfig {
            max_retries: TRIES,
            retry_timeout: TRYING,
            ..RetryConfig::default()
        };
        let wire = Wire(client);
        macro_rules! built {
            ($builder:ty) => {{
                let mut builder = <$builder>::from_env()
                    .with_url(url)
                    .with_client_options(options)
                    .with_retry(retry);
                for (key, value) in settings {
                    builder = builder.with_config(key.parse().map_err(wrong)?, value);
                }
                Arc::new(builder.with_http_connector(wire).build().map_err(wrong)?)
            }};
        }
        let (objects, signer, longest): (Arc<dyn ObjectStore>, Arc<dyn Signer>, _) = match scheme {
            "s3" => {
                let store = built!(AmazonS3Builder);
                (store.clone(), store, Some(SIGNED))
            }
            "gs" => {
                let store = built!(GoogleCloudStorageBuilder);
                (store.clone(), store, Some(SIGNED))
            }
            "az" => {
                let store = built!(MicrosoftAzureBuilder);
                (store.clone(), store, None)
            }
            other => {
                return Err(RemoteError(format!(
                    "{other}:// is not a known kind of store"
                )));
            }
        };
        Ok(Self {
            objects,
            signer,
            prefix,
            longest,
        })
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        let drawer = drawer(key).ok_or(StoreError::Missing)?;
        Ok(self.prefix.clone().join(drawer).join(key))
    }
}

#[async_trait]
impl Store for Remote {
    async fn begin(&self, key: &str, file: &FileLabel<'_>) -> Result<Box<dyn Sink>, StoreError> {
        let name = utf8_percent_encode(file.name, ESCAPED);
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, file.content_type.to_owned()),
            (
                Attribute::ContentDisposition,
                format!("attachment; filename*=UTF-8''{name}"),
            ),
        ]);
        Ok(Box::new(RemoteSink {
            objects: self.objects.clone(),
            path: self.path(key)?,
            attributes,
            digest: Sha256::new(),
            first: Vec::new(),
            held: 0,
            parts: None,
        }))
    }

    async fn open(&self, key: &str, range: Range<u64>) -> Result<FileBytes, StoreError> {
        let path = self.path(key)?;
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self
            .objects
            .get_opts(&path, options)
            .await
            .map_err(|error| failed("read a file", &error))?;
        Ok(Box::pin(
            found
                .into_stream()
                .map_err(|error| failed("read a file", &error)),
        ))
    }

    async fn remove(&self, key: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove a file", &error)),
        }
    }

    async fn look(&self, number: u16, before: Timestamp) -> Result<Vec<String>, StoreError> {
        let folder = self.prefix.clone().join(format!("{number:02x}"));
        let mut list = self.objects.list(Some(&folder));
        let mut keys = Vec::new();
        while let Some(object) = list.next().await {
            let object = object.map_err(|error| failed("list files", &error))?;
            let written = Timestamp::from_millis(object.last_modified.timestamp_millis());
            if let (true, Some(key)) = (written < before, object.location.filename()) {
                keys.push(key.to_owned());
            }
        }
        Ok(keys)
    }

    async fn link(&self, key: &str, lifetime: Duration) -> Result<Option<String>, StoreError> {
        let lifetime = self
            .longest
            .map_or(lifetime, |longest| lifetime.min(longest));
        let link = self
            .signer
            .signed_url(http::Method::GET, &self.path(key)?, lifetime)
            .await;
        link.map(|link| Some(link.to_string()))
            .map_err(|error| failed("sign a link", &error))
    }

    fn is_ours_alone(&self) -> bool {
        false
    }
}

/// A file that is being written into a bucket: whole in memory while it is small, else in parts.
struct RemoteSink {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    attributes: Attributes,
    digest: Sha256,
    first: Vec<Bytes>,
    held: usize,
    parts: Option<WriteMultipart>,
}

#[async_trait]
impl Sink for RemoteSink {
    async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.digest.update(&piece);
        if self.parts.is_none() && self.held + piece.len() <= PART {
            self.held += piece.len();
            self.first.push(piece);
            return Ok(());
        }
        if self.parts.is_none() {
            let options = PutMultipartOptions {
                attributes: self.attributes.clone(),
                ..PutMultipartOptions::default()
            };
            let begun = self.objects.put_multipart_opts(&self.path, options).await;
            let begun = begun.map_err(|error| failed("begin a file", &error))?;
            let mut parts = WriteMultipart::new_with_chunk_size(begun, PART);
            for piece in self.first.drain(..) {
                parts.write(&piece);
            }
            self.parts = Some(parts);
        }
        if let Some(parts) = &mut self.parts {
            parts
                .wait_for_capacity(UNDER_WAY)
                .await
                .map_err(|error| failed("send a part of a file", &error))?;
            parts.write(&piece);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<[u8; 32], StoreError> {
        if let Some(parts) = &mut self.parts {
            parts
                .wait_for_capacity(1)
                .await
                .map_err(|error| failed("send a part of a file", &error))?;
        }
        Ok(self.digest.finalize_reset().into())
    }

    async fn place(mut self: Box<Self>) -> Result<(), StoreError> {
        let put = match self.parts.take() {
            Some(parts) => parts.finish().await,
            None => {
                let payload: PutPayload = std::mem::take(&mut self.first).into_iter().collect();
                let options = PutOptions {
                    attributes: self.attributes.clone(),
                    ..PutOptions::default()
                };
                self.objects.put_opts(&self.path, payload, options).await
            }
        };
        put.map(|_| ())
            .map_err(|error| failed("put a file at its place", &error))
    }
}

/// Tells the store that its parts of the upload are not needed any more.
impl Drop for RemoteSink {
    fn drop(&mut self) {
        if let (Some(parts), Ok(runtime)) = (self.parts.take(), Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = parts.abort().await {
                    tracing::warn!(%error, "cannot call an upload to the attachment store off");
                }
            });
        }
    }
}

fn failed(doing: &'static str, error: &object_store::Error) -> StoreError {
    match error {
        object_store::Error::NotFound { .. } => StoreError::Missing,
        error => StoreError::Failed {
            doing,
            cause: error.to_string(),
        },
    }
}

/// The gateway's HTTP client in the place of the store's own.
#[derive(Clone, Debug)]
struct Wire(Client);

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match tokio::time::timeout(ANSWER, self.0.relay(request)).await {
            Ok(Ok(answer)) => {
                let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
                Ok(answer.map(|body| {
                    HttpResponseBody::new(http_body_util::BodyExt::map_err(body, broken))
                }))
            }
            Ok(Err(error @ SendError::NotSent(_))) => {
                Err(HttpError::new(HttpErrorKind::Connect, error))
            }
            Ok(Err(error)) => Err(HttpError::new(HttpErrorKind::Interrupted, error)),
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        }
    }
}
