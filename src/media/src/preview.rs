//! Previews of pages: what a page says of itself, and its picture, fetched by us so that its server sees none of our users.
//!
//! All of it is bounded (threat H3) and goes through the one client that connects to nothing private (threat H2). A page is fetched
//! once for all who ask, and what was found is remembered for an hour; pictures are kept as other servers' media is, and go with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

mod html;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use comity_protocol::id::UserId;
use comity_runtime::{Pool, Runtime};
use futures_util::{StreamExt, stream};
use tokio::{fs::File, io::AsyncReadExt, sync::Semaphore, time::timeout};
use url::Url;

pub use html::properties;

use crate::{
    Content, Elsewhere, Fetched, Kind, Media, MediaError, NotFetched, Page, Pieces,
    flights::{Flights, Outcome},
    staging::Staged,
    tables::MediaKey,
    thumbnail::Task,
    turns::Turns,
    upload::content,
};

/// The part of a page that is read, and the largest picture, in bytes.
const MAX_PAGE: usize = 1 << 20;
const MAX_PICTURE: u64 = 10 << 20;
/// For a page and its picture.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages looked at at once: altogether, for a user; and that wait.
const LOOKS: usize = 16;
const BY_USER: (usize, usize) = (4, 60);
const WAITING: usize = 512;
/// Pages read at once, and that wait for it.
const READ: (usize, usize) = (2, 64);
/// How long it is remembered what a page says, and that there is none.
const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
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

/// What was found lately and is looked for, by address.
pub(crate) struct Previews {
    flights: Flights<String, Arc<Preview>>,
    users: Turns,
    places: Semaphore,
    /// Where pages are read: who floods it holds up nothing else.
    readers: Pool,
}

impl Previews {
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            flights: Flights::new(runtime, "preview", WAITING, good_for),
            users: Turns::new(BY_USER.0, BY_USER.1),
            places: Semaphore::new(LOOKS),
            readers: runtime.pool("pages", READ.0, READ.1),
        }
    }
}

fn good_for(preview: &Outcome<Arc<Preview>>) -> Duration {
    match preview {
        Ok(_) => HOUR,
        Err(MediaError::NoPage(_)) => MINUTE,
        Err(_) => Duration::ZERO,
    }
}

impl Media {
    /// Whether pages are previewed.
    pub fn previews_pages(&self) -> bool {
        self.0.config.previews
    }

    /// A preview of a page for a user.
    ///
    /// # Errors
    /// [`MediaError::NoPreviews`], [`MediaError::BadAddress`], [`MediaError::NoPage`], [`MediaError::FetchedTooMuch`],
    /// [`MediaError::Busy`].
    pub async fn preview(&self, user: &UserId, address: &str) -> Result<Arc<Preview>, MediaError> {
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
        // Each waits in a queue of their own, whoever began the flight.
        let turn = Arc::new(self.0.previews.users.take(user.as_str()).await?);
        let look = || {
            let (media, url, user) = (self.clone(), url.clone(), user.to_owned());
            let turn = Arc::clone(&turn);
            async move {
                let _turn = turn;
                media.look_in_turn(&url, user.as_str()).await
            }
        };
        let flights = &self.0.previews.flights;
        flights.outcome(&url.to_string(), look).await
    }

    async fn look_in_turn(&self, url: &Url, user: &str) -> Outcome<Arc<Preview>> {
        let previews = &self.0.previews;
        let place = previews.places.acquire().await;
        let _place = place.map_err(|_| MediaError::Stopped)?;
        self.0.fetching.allowances.admit(user)?;
        let looked = timeout(PATIENCE, self.look(url, user)).await;
        let timed_out = || NotFetched::Unreachable("timed out".to_owned());
        let looked = looked.map_err(|_| timed_out().into()).flatten();
        let (mut preview, picture) = looked.map_err(|error| match error {
            MediaError::NotFetched(cause) => MediaError::NoPage(cause),
            error => error,
        })?;
        if let Some(picture) = picture {
            preview.extend(self.keep_picture(picture).await?);
        }
        Ok(Arc::new(preview))
    }

    /// What a page says of itself, and its picture, which isn't kept yet.
    async fn look(&self, url: &Url, user: &str) -> Result<(Preview, Option<Picture>), MediaError> {
        let elsewhere = self.0.fetching.elsewhere.get();
        let elsewhere = elsewhere.ok_or(MediaError::NoPreviews)?;
        let found = self.page(&**elsewhere, url, user).await?;
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
            return Ok((preview, self.picture(found.file).await?));
        }
        if !matches!(essence, "text/html" | "application/xhtml+xml") {
            return Ok((preview, None));
        }
        let page = beginning(found.file).await;
        let charset = kind.split_once("charset=").map(|(_, rest)| rest);
        let charset = charset.and_then(|rest| rest.split(';').next());
        let charset = charset.map(|label| label.trim_matches([' ', '"']).to_owned());
        let read = move || html::properties(&page, charset.as_deref());
        let said = self.0.previews.readers.run(read).await;
        let said = said.map_err(|_| MediaError::Busy)?;
        let shown = said.get("og:image").and_then(|to| base.join(to).ok());
        for (name, value) in said {
            // What is said of a picture that isn't ours isn't said of the one that is.
            if name != "og:image" && !name.starts_with("og:image:") {
                preview.insert(name, Said::Text(value));
            }
        }
        if let Some(shown) = shown {
            let shown = async {
                match self.page(&**elsewhere, &shown, user).await {
                    Ok(Page { file, .. }) => self.picture(file).await,
                    Err(_) => Ok(None),
                }
            };
            let picture = timeout(PATIENCE / 2, shown).await;
            return Ok((preview, picture.unwrap_or(Ok(None))?));
        }
        Ok((preview, None))
    }

    /// What an address names, its bytes counted for the user.
    async fn page(
        &self,
        elsewhere: &dyn Elsewhere,
        url: &Url,
        user: &str,
    ) -> Result<Page, NotFetched> {
        let mut page = elsewhere.page(url.as_str(), MAX_PICTURE).await?;
        page.file.body = self.0.fetching.allowances.spending(user, page.file.body);
        Ok(page)
    }

    /// A picture, if it can be shown: a page without its picture is a preview still.
    async fn picture(&self, file: Fetched) -> Result<Option<Picture>, MediaError> {
        use MediaError::{Broken, NoPicture, NotFetched, PictureTooLarge, TooLarge};
        match self.measured(file).await {
            Ok(picture) => Ok(Some(picture)),
            Err(error @ (Broken | NoPicture | NotFetched(_) | PictureTooLarge | TooLarge)) => {
                tracing::debug!(%error, "a page's picture can't be shown");
                Ok(None)
            }
            // That says nothing of it.
            Err(error) => Err(error),
        }
    }

    async fn measured(&self, file: Fetched) -> Result<Picture, MediaError> {
        let Fetched { described, body } = file;
        let name = self.new_id();
        let staged = self.0.blobs.stage(&name, body, MAX_PICTURE).await?;
        let kind = Kind::of(&staged.head);
        if kind == Kind::Other {
            return Err(MediaError::NoPicture);
        }
        let pieces = pieces(&staged).await?;
        let measured = self.render(Task::Measure, kind, pieces).await?;
        let mut content = content(&staged, described);
        content.content_type = kind.content_type().to_owned();
        Ok(Picture {
            staged,
            content,
            width: measured.width,
            height: measured.height,
        })
    }

    /// Keeps a picture; what is said of it.
    async fn keep_picture(&self, picture: Picture) -> Result<Preview, MediaError> {
        let mxc = self.own(&self.new_id())?;
        let (key, content) = (MediaKey::from(&mxc), picture.content);
        let (content, _) = self.cache(&key, &picture.staged, content).await?;
        let said = [
            ("og:image", Said::Text(mxc.to_string())),
            ("og:image:type", Said::Text(content.content_type)),
            ("og:image:width", Said::Number(picture.width.into())),
            ("og:image:height", Said::Number(picture.height.into())),
            ("matrix:image:size", Said::Number(content.size)),
        ];
        Ok(said.map(|(name, said)| (name.to_owned(), said)).into())
    }
}

/// A picture that is staged, and how large it is.
struct Picture {
    staged: Staged,
    content: Content,
    width: u32,
    height: u32,
}

/// What was staged.
async fn pieces(staged: &Staged) -> io::Result<Pieces> {
    let file = File::open(staged.path()).await?;
    let next = |mut file: File| async move {
        let mut piece = vec![0; 64 << 10];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, io::Error>((read > 0).then(|| (Bytes::from(piece), file)))
    };
    Ok(stream::try_unfold(file, next).boxed())
}

/// What of a page there is before it breaks off or is too long.
async fn beginning(file: Fetched) -> Vec<u8> {
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
