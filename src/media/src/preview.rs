//! Previews of pages: what a page says of itself, and its picture, fetched by us so that its server sees none of our users.
//!
//! All of it is bounded (threat H3) and goes through the one client that connects to nothing private (threat H2). What was found
//! is remembered for an hour; pictures are kept as other servers' media is, and go with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

mod html;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use url::Url;

use crate::{
    Fetched, Kind, Media, MediaError, Mxc, NotFetched, Page,
    staging::Staged,
    tables::{self, Cached, MediaKey, Medias, Remote},
    thumbnail::Task,
    upload::content,
};

/// The part of a page that is read, and the largest picture, in bytes.
const MAX_PAGE: usize = 1 << 20;
const MAX_PICTURE: u64 = 10 << 20;
/// For a page and its picture.
const PATIENCE: Duration = Duration::from_secs(30);
/// Previews remembered, and for how long.
const REMEMBERED: usize = 1_000;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// The longest address, in bytes.
const MAX_ADDRESS: usize = 4 << 10;

/// What a page says of itself, by property.
pub type Preview = BTreeMap<String, Said>;

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text.
    Text(String),
    /// A number that we found out.
    Number(u64),
}

/// What was found lately, and until when on the monotonic clock it is good.
#[derive(Default)]
pub(crate) struct Previews(Mutex<BTreeMap<String, (Duration, Arc<Preview>)>>);

impl Media {
    /// Whether pages are previewed.
    pub fn previews_pages(&self) -> bool {
        self.0.config.previews
    }

    /// A preview of a page.
    ///
    /// # Errors
    /// [`MediaError::NoPreviews`], [`MediaError::BadAddress`], [`MediaError::NoPage`].
    pub async fn preview(&self, address: &str) -> Result<Arc<Preview>, MediaError> {
        if !self.0.config.previews {
            return Err(MediaError::NoPreviews);
        }
        if address.len() > MAX_ADDRESS {
            return Err(MediaError::BadAddress);
        }
        let mut url = Url::parse(address).map_err(|_| MediaError::BadAddress)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(MediaError::BadAddress);
        }
        // The part of a page that a browser would go to.
        url.set_fragment(None);
        let now = self.0.runtime.clock().monotonic();
        let known = self.0.previews.0.lock().get(url.as_str()).cloned();
        if let Some((_, preview)) = known.filter(|(until, _)| *until > now) {
            return Ok(preview);
        }
        let made = tokio::time::timeout(PATIENCE, self.look(&url)).await;
        let timed_out = || NotFetched::Unreachable("timed out".to_owned());
        let made = made.map_err(|_| timed_out().into()).flatten();
        let preview = Arc::new(made.map_err(|error| match error {
            MediaError::NotFetched(cause) => MediaError::NoPage(cause),
            error => error,
        })?);
        let mut previews = self.0.previews.0.lock();
        if previews.len() >= REMEMBERED {
            previews.retain(|_, (until, _)| *until > now);
        }
        if previews.len() >= REMEMBERED {
            previews.clear();
        }
        previews.insert(url.into(), (now + HOUR, preview.clone()));
        Ok(preview)
    }

    async fn look(&self, url: &Url) -> Result<Preview, MediaError> {
        let elsewhere = self.0.fetching.elsewhere.get();
        let elsewhere = elsewhere.ok_or(MediaError::NoPreviews)?.clone();
        let found = elsewhere.page(url.as_str(), MAX_PICTURE).await?;
        let base = Url::parse(&found.address).map_err(|_| MediaError::BadAddress)?;
        let kind = found
            .file
            .described
            .content_type
            .clone()
            .unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let mut preview = Preview::new();
        if essence.starts_with("image/") {
            self.picture(&mut preview, found.file).await?;
            return Ok(preview);
        }
        if !matches!(essence, "text/html" | "application/xhtml+xml") {
            return Ok(preview);
        }
        let page = beginning(found.file).await;
        let charset = kind.split_once("charset=").map(|(_, label)| label);
        let charset = charset.map(|label| label.trim_matches([' ', '"']).to_owned());
        let read = move || html::properties(&page, charset.as_deref());
        let said = self.0.files.run(read).await.map_err(|_| MediaError::Busy)?;
        let shown = said.get("og:image").and_then(|to| base.join(to).ok());
        for (name, value) in said {
            // What is said of a picture that isn't ours isn't said of the one that is.
            if name != "og:image" && !name.starts_with("og:image:") {
                preview.insert(name, Said::Text(value));
            }
        }
        if let Some(shown) = shown {
            // A page without its picture is a preview still.
            let fetched = elsewhere.page(shown.as_str(), MAX_PICTURE).await;
            if let Ok(Page { file, .. }) = fetched
                && let Err(error) = self.picture(&mut preview, file).await
            {
                tracing::debug!(%error, "a page's picture can't be kept");
            }
        }
        Ok(preview)
    }

    /// Keeps a picture, and says so.
    async fn picture(&self, preview: &mut Preview, file: Fetched) -> Result<(), MediaError> {
        let Fetched { described, body } = file;
        let staged = self
            .0
            .blobs
            .stage(&self.new_id(), body, MAX_PICTURE)
            .await?;
        let mut content = content(&staged, described);
        if content.kind == Kind::Other {
            return Ok(());
        }
        content.content_type = content.kind.content_type().to_owned();
        let mxc = self.own(&self.new_id())?;
        let size = content.size;
        let kind = content.kind;
        let shown = self.keep_picture(&mxc, staged, content).await?;
        for (name, value) in [
            ("og:image", Said::Text(mxc.to_string())),
            ("og:image:type", Said::Text(kind.content_type().to_owned())),
            ("og:image:width", Said::Number(shown.0.into())),
            ("og:image:height", Said::Number(shown.1.into())),
            ("matrix:image:size", Said::Number(size)),
        ] {
            preview.insert(name.to_owned(), value);
        }
        Ok(())
    }

    async fn keep_picture(
        &self,
        mxc: &Mxc,
        staged: Staged,
        content: tables::Content,
    ) -> Result<(u32, u32), MediaError> {
        let key = MediaKey::from(mxc);
        let now = self.now_ms();
        let row = tables::Media {
            uploader: None,
            created_ts: now,
            expires_ts: 0,
            content: Some(content.clone()),
        };
        let cached = Cached {
            bytes: content.size,
            used_ts: now,
        };
        self.place(&staged, &key, |batch| {
            batch.put::<Medias>(&key, &row).put::<Remote>(&key, &cached);
        })
        .await?;
        self.kept(content.size).await?;
        let measured = self.render(Task::Measure, &content).await?;
        Ok((measured.width, measured.height))
    }
}

/// What of a page there is before it breaks off or is too long.
async fn beginning(file: Fetched) -> Vec<u8> {
    use futures_util::StreamExt;
    let (mut body, mut page) = (file.body, Vec::new());
    while let Some(Ok(piece)) = body.next().await {
        let missing = MAX_PAGE.saturating_sub(page.len());
        page.extend(piece.iter().take(missing));
        if page.len() >= MAX_PAGE {
            break;
        }
    }
    page
}
