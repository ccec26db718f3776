//! A bucket of an S3 service: where blobs are when they are not on this machine's disk.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::{error::Error, fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use comity_runtime::Runtime;
use jiff::Timestamp;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    path::{Path as Name, PathPart},
};
use rusty_s3::{Credentials, S3Action, UrlStyle};
use tokio::{fs::File, io::AsyncReadExt, time::timeout};
use url::Url;

use crate::{MediaError, staging::Staged};

/// Files up to this size are sent by one request, others in pieces of it, of which two are on their way at a time.
const PIECE: usize = 8 << 20;
const ON_THEIR_WAY: usize = 2;
/// How long a link is good for.
const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long the service may say nothing before a request has failed, and how long requests are repeated.
const SILENCE: Duration = Duration::from_secs(20);
const REPEATED: (usize, Duration) = (3, Duration::from_secs(40));
/// How long it may take to show that it can be used.
const TRIAL: Duration = Duration::from_secs(10);
/// Of what the service says of itself, in characters.
const MAX_SAID: usize = 200;

/// Where a bucket is, and by what right it is used.
#[derive(Clone)]
pub struct BucketConfig {
    /// The bucket's name.
    pub name: String,
    /// Where the service is, `http(s)://host[:port]`, with the bucket's name in the path. `None`: Amazon's, in `region`.
    pub endpoint: Option<Url>,
    /// The region that requests are signed for.
    pub region: String,
    /// What the keys of all objects begin with, as folders.
    pub prefix: String,
    /// Who asks.
    pub access_key_id: String,
    /// What they sign with.
    pub secret_access_key: String,
    /// Whether users fetch files from the service itself, by links that are good for five minutes.
    pub redirects: bool,
}

impl fmt::Debug for BucketConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketConfig")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What an answer's headers say of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    /// `Content-Type`
    pub content_type: &'a str,
    /// `Content-Disposition`
    pub disposition: &'a str,
}

/// Whether files can be kept in a bucket, had again and taken away.
///
/// # Errors
/// Why not, in the operator's words.
pub async fn try_out(config: BucketConfig, runtime: &Runtime) -> Result<(), String> {
    let bucket = Bucket::new(config).map_err(|error| error.to_string())?;
    bucket.try_out(runtime).await
}

/// A bucket in use.
pub(crate) struct Bucket {
    store: Arc<AmazonS3>,
    /// What it is called to its operator, and who asks.
    place: String,
    key: String,
    prefix: Name,
    /// By what links are made, if they are.
    links: Option<(rusty_s3::Bucket, Credentials)>,
}

impl Bucket {
    /// Of this configuration; nothing is asked of the service yet.
    pub fn new(config: BucketConfig) -> Result<Self, MediaError> {
        let options = ClientOptions::new()
            .with_allow_http(true)
            // A file takes as long as its reader does: what counts is that something comes.
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_connect_timeout(SILENCE);
        let retry = RetryConfig {
            max_retries: REPEATED.0,
            retry_timeout: REPEATED.1,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.name)
            .with_region(&config.region)
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(&config.secret_access_key)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        let links = config.redirects.then(|| links(&config)).transpose()?;
        let endpoint = config.endpoint.as_ref().map(Url::as_str);
        let endpoint = endpoint.unwrap_or("Amazon's").trim_end_matches('/');
        Ok(Self {
            store: Arc::new(builder.build()?),
            place: format!("`{}` (s3.bucket) at {endpoint} (s3.endpoint)", config.name),
            key: config.access_key_id,
            prefix: Name::from(config.prefix),
            links,
        })
    }

    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as _
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> impl Iterator<Item = PathPart<'_>> {
        self.prefix.parts()
    }

    /// By a small file, which goes again.
    pub async fn try_out(&self, runtime: &Runtime) -> Result<(), String> {
        let name = format!("trial-{}", runtime.random().alphanumeric(24));
        let name: Name = self.prefix().chain([name.as_str().into()]).collect();
        let trial = async {
            const BYTES: &[u8] = b"comity";
            let put = self.store.put(&name, Bytes::from_static(BYTES).into());
            put.await.map_err(|error| self.why("put", &error))?;
            let read = async { self.store.get(&name).await?.bytes().await };
            let read = read.await;
            // Whatever came of it, nothing is to stay.
            let gone = self.store.delete(&name).await;
            let read = read.map_err(|error| self.why("get", &error))?;
            gone.map_err(|error| self.why("delete", &error))?;
            if read == BYTES {
                Ok(())
            } else {
                Err(format!(
                    "{} gives other bytes than it was given",
                    self.place
                ))
            }
        };
        let silent = |_| format!("{} doesn't answer", self.place);
        timeout(TRIAL, trial).await.map_err(silent)?
    }

    /// Why an object could not be put, got or deleted.
    fn why(&self, what: &str, error: &object_store::Error) -> String {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let (place, said, whole) = (&self.place, said(error), error.to_string());
        let is_missing = element("Code", &whole) == Some("NoSuchBucket");
        match error {
            NotFound { .. } if is_missing => format!("there is no {place}: {said}"),
            // A key that is unknown isn't found either.
            NotFound { .. } | PermissionDenied { .. } | Unauthenticated { .. } => {
                let key = &self.key;
                format!("`{key}` (s3.access_key_id) may not {what} objects in {place}: {said}")
            }
            _ => format!("{place} can't be used: {said}"),
        }
    }

    /// Sends a staged file there. Nothing is there under the name before all of it is.
    pub async fn upload(&self, staged: &Staged, name: &Name) -> Result<(), MediaError> {
        let mut file = File::open(staged.path()).await?;
        let first = piece(&mut file).await?;
        if first.len() < PIECE {
            let put = self.store.put(name, first.freeze().into()).await;
            return put.map(drop).map_err(failed);
        }
        let upload = self.store.put_multipart(name).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE);
        match send(&mut upload, &mut file, first).await {
            Ok(()) => upload.finish().await.map(drop).map_err(failed),
            Err(error) => {
                // The pieces that came cost the operator money until they are taken away.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "a broken upload stays in the bucket; a lifecycle rule takes it away");
                }
                Err(error)
            }
        }
    }

    /// Where whoever is told can read an object for a while, with these headers. `None`: they can't.
    pub fn link(&self, name: &Name, served: Served<'_>, now_ms: u64) -> Option<Url> {
        let (bucket, credentials) = self.links.as_ref()?;
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let mut get = bucket.get_object(Some(credentials), name.as_ref());
        let query = get.query_mut();
        query.insert("response-content-type", served.content_type);
        query.insert("response-content-disposition", served.disposition);
        Some(get.sign_with_time(LINK_LIFETIME, &now))
    }
}

/// The service's fault, not this disk's.
pub(crate) fn failed(error: object_store::Error) -> MediaError {
    MediaError::Bucket(error.to_string())
}

/// An element of what the service answers.
fn element<'a>(name: &str, answer: &'a str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// What the service says, or else what lies at the bottom of it.
fn said(error: &object_store::Error) -> String {
    let whole = error.to_string();
    let said = match (element("Code", &whole), element("Message", &whole)) {
        (Some(code), Some(message)) => format!("{code}, {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => {
            let mut cause: &(dyn Error + 'static) = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    };
    let line = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_SAID).collect()
}

fn links(config: &BucketConfig) -> Result<(rusty_s3::Bucket, Credentials), MediaError> {
    let (endpoint, style) = match &config.endpoint {
        Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
        None => {
            let host = format!("https://s3.{}.amazonaws.com", config.region);
            let endpoint = Url::parse(&host).map_err(|_| MediaError::NoBucket)?;
            (endpoint, UrlStyle::VirtualHost)
        }
    };
    let (name, region) = (config.name.clone(), config.region.clone());
    let bucket = rusty_s3::Bucket::new(endpoint, style, name, region);
    let bucket = bucket.map_err(|_| MediaError::NoBucket)?;
    let (id, secret) = (&config.access_key_id, &config.secret_access_key);
    Ok((bucket, Credentials::new(id, secret)))
}

async fn send(
    upload: &mut WriteMultipart,
    file: &mut File,
    first: BytesMut,
) -> Result<(), MediaError> {
    let mut next = first;
    while !next.is_empty() {
        upload
            .wait_for_capacity(ON_THEIR_WAY)
            .await
            .map_err(failed)?;
        upload.put(next.freeze());
        next = piece(file).await?;
    }
    Ok(())
}

/// As much as is sent at once, less at the file's end.
async fn piece(file: &mut File) -> Result<BytesMut, MediaError> {
    let mut piece = BytesMut::new();
    let mut left = file.take(PIECE as u64);
    while left.read_buf(&mut piece).await? > 0 {}
    Ok(piece)
}
