//! Many at once, and those who mean no good: nobody takes what belongs to all (threats H5, H6, law 11).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod house;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use comity_media::{
    Config, Content, Described, Elsewhere, Fetched, Kind, Media, MediaError, Mxc, NotFetched, Page,
    Pieces, RenderError, Rendered, Renderer, Size, Task, Unrendered, Wanted,
    tables::{Remote, Thumbnails},
    whole,
};
use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::{Tenant, engine::Memory};
use futures_util::{StreamExt, future::join_all, stream};
use house::{LANES, all};
use tempfile::TempDir;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);
/// What each file counts for beside its bytes.
const FOOTPRINT: u64 = 16 << 10;
/// Enough for a file to be taken for a picture.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Who is under way, now and at most, and how many were altogether.
#[derive(Default)]
struct Busy {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Busy {
    async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.all.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let done = work.await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        done
    }

    fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

/// Other servers and sites, which take a second to answer.
#[derive(Default)]
struct Others {
    asked: Busy,
}

fn drip() -> Pieces {
    let drop = |()| async {
        sleep(25 * SECOND).await;
        Some((Ok(Bytes::from_static(b"x")), ()))
    };
    stream::unfold((), drop).boxed()
}

fn file(body: impl Into<Bytes>) -> Fetched {
    Fetched {
        described: Described::default(),
        body: whole(body.into()).boxed(),
    }
}

#[async_trait]
impl Elsewhere for Others {
    async fn media(&self, mxc: &Mxc, wait: Duration, most: u64) -> Result<Fetched, NotFetched> {
        self.asked.during(sleep(SECOND)).await;
        let long = vec![7; usize::try_from(most).unwrap()];
        match mxc.server().as_str() {
            "dripping.test" => Ok(Fetched {
                body: drip(),
                ..file("")
            }),
            "breaking.test" => {
                let pieces = [Ok(long.into()), Err(io::Error::other("broken"))];
                Ok(Fetched {
                    body: stream::iter(pieces).boxed(),
                    ..file("")
                })
            }
            "long.test" => Ok(file(long)),
            "short.test" => Ok(file("x")),
            "picture.test" => Ok(file(PNG)),
            "later.test" => {
                sleep(wait).await;
                Err(NotFetched::NotYetUploaded)
            }
            _ => Err(NotFetched::NotFound),
        }
    }

    async fn page(&self, address: &str, _: u64) -> Result<Page, NotFetched> {
        self.asked.during(sleep(SECOND)).await;
        let (kind, body) = if address.ends_with(".png") {
            ("image/png", Bytes::from_static(PNG))
        } else {
            let page = "<title>x</title><meta property=og:image content=/x.png>";
            ("text/html", Bytes::from_static(page.as_bytes()))
        };
        let mut file = file(body);
        file.described.content_type = Some(kind.to_owned());
        Ok(Page {
            address: address.to_owned(),
            file,
        })
    }
}

/// Two workers, whom a picture takes a second, or half a minute and more if it is hostile.
struct Painters {
    busy: Busy,
    places: Semaphore,
}

#[async_trait]
impl Renderer for Painters {
    async fn render(&self, _: Task, _: Kind, mut file: Pieces) -> Result<Rendered, RenderError> {
        let _place = self.places.acquire().await.unwrap();
        let hostile = file.next().await.unwrap().unwrap().len() > PNG.len();
        let time = if hostile { 30 * SECOND } else { SECOND };
        self.busy.during(sleep(time)).await;
        if hostile {
            return Err(RenderError::Unrendered(Unrendered::Unreadable));
        }
        Ok(Rendered {
            width: 1,
            height: 1,
            file: Some((Kind::Png, [PNG, b"small"].concat())),
        })
    }
}

struct World {
    media: Media,
    tenant: Tenant,
    others: Arc<Others>,
    painters: Arc<Painters>,
    folder: TempDir,
}

impl World {
    async fn new(lanes: u8, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tenant = house::tenant(&Memory::new(), lanes, 1).await;
        let others = Arc::new(Others::default());
        let painters = Arc::new(Painters {
            busy: Busy::default(),
            places: Semaphore::new(2),
        });
        let mut config = house::config(folder.path());
        change(&mut config);
        let media = house::open(&tenant, config, others.clone(), painters.clone());
        media.resume().await.unwrap();
        Self {
            media,
            tenant,
            others,
            painters,
            folder,
        }
    }

    async fn find(&self, user: &UserId, server: &str, id: usize) -> Result<Content, MediaError> {
        let mxc = Mxc::new(server, &id.to_string()).unwrap();
        let wanted = Wanted::default().fetched_for(user);
        self.media.find(&mxc, wanted).await
    }

    async fn upload(&self, user: &UserId, file: &[u8]) -> Mxc {
        let body = whole(Bytes::copy_from_slice(file)).boxed();
        let described = Described::default();
        let done = self.media.upload(user, described, None, body).await;
        done.unwrap()
    }

    async fn thumbnail(&self, user: &UserId, mxc: &Mxc) -> Result<Content, MediaError> {
        let size = Size {
            width: 32,
            height: 32,
            crop: true,
            animated: false,
        };
        let wanted = Wanted::default().fetched_for(user);
        self.media.thumbnail(mxc, size, wanted).await
    }
}

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{name}:a.test")).unwrap()
}

/// H6: a server that sends next to nothing holds few places, none of them for long, and those of no other server.
#[tokio::test(start_paused = true)]
async fn h6_who_drips_holds_up_nobody_else() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let mallory: Vec<_> = (0..10).map(|n| user(&format!("mallory{n}"))).collect();
        let ask = |n: usize| world.find(&mallory[n % 10], "dripping.test", n);
        let dripping = join_all((0..100).map(ask));
        let others = async {
            sleep(2 * SECOND).await;
            assert_eq!(world.others.asked.all(), 4);
            let found = timeout(2 * SECOND, world.find(&user("alice"), "short.test", 1)).await;
            assert_eq!(found.unwrap().unwrap().size, 1);
            sleep(30 * SECOND).await;
            assert_eq!(world.others.asked.all(), 4 + 1 + 4);
        };
        let within = timeout(100 * SECOND, dripping);
        let (dripped, ()) = tokio::join!(within, others);
        assert!(dripped.is_err());
        assert_eq!(world.others.asked.most(), 4);
    }
}

/// H6: a user's bucket holds when they ask for everything at once, and counts what breaks off.
#[tokio::test(start_paused = true)]
async fn h6_a_bucket_holds() {
    const LONG: u64 = 100_000 + FOOTPRINT;
    for lanes in LANES {
        for server in ["long.test", "breaking.test"] {
            let world = World::new(lanes, |config| config.fetch_bucket_bytes = 10 * LONG).await;
            let alice = user("alice");
            let all = join_all((0..100).map(|n| world.find(&alice, server, n))).await;
            let refused =
                |one: &Result<_, _>| matches!(one, Err(MediaError::FetchedTooMuch { .. }));
            let refused = all.iter().filter(|one| refused(one)).count();
            // Those that were on their way when it was full: of one server.
            assert!((100 - 10 - 4..100 - 10).contains(&refused), "{refused}");
            assert_eq!(world.others.asked.all(), 100 - refused);
            assert_eq!(world.others.asked.most(), 4);
            let bob = world.find(&user("bob"), server, 200).await;
            assert!(!matches!(bob, Err(MediaError::FetchedTooMuch { .. })));
        }
    }
}

/// What can't be had is asked for once, however many ask, and not again for a while.
#[tokio::test(start_paused = true)]
async fn what_fails_fails_for_all() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let users: Vec<_> = (0..300).map(|n| user(&format!("u{n}"))).collect();
        let began = Instant::now();
        for (after, asked) in [(5 * SECOND, 1), (6 * SECOND, 1), (SECOND, 2)] {
            let asking = users.iter().map(|user| world.find(user, "nothing.test", 1));
            for found in join_all(asking).await {
                let none = matches!(found, Err(MediaError::NotFetched(NotFetched::NotFound)));
                assert!(none, "{found:?}");
            }
            assert_eq!(world.others.asked.all(), asked);
            sleep(after).await;
        }
        assert_eq!(began.elapsed(), 14 * SECOND);
        // What isn't uploaded yet may be at once: that is remembered for nobody.
        for asked in 3..5 {
            let mxc = Mxc::new("later.test", "x").unwrap();
            let alice = user("alice");
            let wanted = Wanted::within(3 * SECOND).fetched_for(&alice);
            let began = Instant::now();
            let later = world.media.find(&mxc, wanted).await;
            let later = matches!(
                later,
                Err(MediaError::NotFetched(NotFetched::NotYetUploaded))
            );
            assert!(later);
            assert_eq!(began.elapsed(), 4 * SECOND);
            assert_eq!(world.others.asked.all(), asked);
        }
    }
}

/// H6: a cache is bounded in files as well as in bytes, and what was made of a file is part of it.
#[tokio::test(start_paused = true)]
async fn h6_short_files_and_thumbnails_count() {
    for lanes in LANES {
        let world = World::new(lanes, |config| config.max_cache_bytes = 10 * FOOTPRINT + 10).await;
        let alice = user("alice");
        for n in 0..30 {
            assert_eq!(world.find(&alice, "short.test", n).await.unwrap().size, 1);
            sleep(SECOND).await;
            let kept = all::<Remote>(&world.tenant.reader()).await;
            assert!(kept.len() <= 10, "{}", kept.len());
            assert!(
                kept.iter()
                    .any(|(key, _)| key.0 == format!("short.test/{n}"))
            );
        }
        for n in 0..5 {
            let mxc = Mxc::new("picture.test", &n.to_string()).unwrap();
            world.thumbnail(&alice, &mxc).await.unwrap();
            sleep(SECOND).await;
        }
        let reader = world.tenant.reader();
        let kept = all::<Remote>(&reader).await;
        let bytes: u64 = kept.iter().map(|(_, cached)| cached.bytes).sum();
        assert!(bytes <= 10 * FOOTPRINT + 10, "{bytes}");
        let thumbnails = all::<Thumbnails>(&reader).await;
        assert!((1..=5).contains(&thumbnails.len()));
        for (key, _) in thumbnails {
            let of = kept.iter().find(|(media, _)| *media == key.media).unwrap();
            assert_eq!(of.1.bytes, 2 * (FOOTPRINT + PNG.len() as u64) + 5);
        }
    }
}

/// H6: what is made of users' own files is bounded as well, goes before nobody's file does, and is made anew when it is wanted.
#[tokio::test(start_paused = true)]
async fn h6_thumbnails_of_our_own_are_bounded() {
    for lanes in LANES {
        let most = 10 * (FOOTPRINT + 13);
        let world = World::new(lanes, |config| config.max_cache_bytes = most).await;
        let alice = user("alice");
        let mut files = Vec::new();
        for _ in 0..30 {
            let mxc = world.upload(&alice, PNG).await;
            world.thumbnail(&alice, &mxc).await.unwrap();
            files.push(mxc);
            sleep(SECOND).await;
            let kept = all::<Remote>(&world.tenant.reader()).await;
            let bytes: u64 = kept.iter().map(|(_, cached)| cached.bytes).sum();
            assert!(bytes <= most, "{bytes}");
        }
        let reader = world.tenant.reader();
        let made = all::<Thumbnails>(&reader).await.len();
        assert!((1..=10).contains(&made), "{made}");
        for mxc in &files {
            assert_eq!(
                world.media.find(mxc, Wanted::default()).await.unwrap().size,
                8
            );
        }
        let drawn = world.painters.busy.all();
        world.thumbnail(&alice, &files[0]).await.unwrap();
        world.thumbnail(&alice, &files[29]).await.unwrap();
        assert_eq!(world.painters.busy.all(), drawn + 1);
        // It goes with its file.
        for mxc in &files {
            world.media.remove(mxc).await.unwrap();
        }
        assert_eq!(all::<Remote>(&reader).await, []);
        assert_eq!(all::<Thumbnails>(&reader).await, []);
        let folder = world.folder.path();
        assert_eq!(house::findings(&world.tenant, folder).await, []);
    }
}

/// H5: a picture is made once for all who ask, and one that can't be made is tried once.
#[tokio::test(start_paused = true)]
async fn h5_a_picture_is_made_once() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let alice = user("alice");
        let users: Vec<_> = (0..500).map(|n| user(&format!("u{n}"))).collect();
        let good = world.upload(&alice, PNG).await;
        let hostile = world.upload(&alice, &[PNG, b"hostile"].concat()).await;
        let made = join_all(users.iter().map(|user| world.thumbnail(user, &good))).await;
        assert!(made.iter().all(Result::is_ok));
        assert_eq!(world.painters.busy.all(), 1);
        for _ in 0..2 {
            let made = join_all(users.iter().map(|user| world.thumbnail(user, &hostile))).await;
            let refused = |one: &Result<_, _>| matches!(one, Err(MediaError::NoPicture));
            assert!(made.iter().all(refused));
            assert_eq!(world.painters.busy.all(), 2);
        }
    }
}

/// H5: who keeps a worker busy with hostile pictures keeps one, not all.
#[tokio::test(start_paused = true)]
async fn h5_one_users_pictures_hold_up_nobody_elses() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let (alice, mallory) = (user("alice"), user("mallory"));
        let mut hostile = Vec::new();
        for n in 0..20 {
            hostile.push(world.upload(&mallory, &[PNG, &[n]].concat()).await);
        }
        let good = world.upload(&alice, PNG).await;
        // Who asks for the same later doesn't wait in their queue.
        let wanted = hostile.iter().chain([&good]);
        let attack = join_all(wanted.map(|mxc| world.thumbnail(&mallory, mxc)));
        let others = async {
            sleep(SECOND).await;
            let made = timeout(2 * SECOND, world.thumbnail(&alice, &good)).await;
            made.unwrap().unwrap();
        };
        let (_, ()) = tokio::join!(timeout(60 * SECOND, attack), others);
    }
}

/// H3: a link that a room sees at once is fetched once, its picture kept once; one user has few pages fetched at a time.
#[tokio::test(start_paused = true)]
async fn h3_pages_are_fetched_once() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let users: Vec<_> = (0..500).map(|n| user(&format!("u{n}"))).collect();
        let page = "http://a.example/page";
        let seen = join_all(users.iter().map(|user| world.media.preview(user, page))).await;
        let first = seen[0].as_ref().unwrap();
        assert!(first.contains_key("og:image"));
        assert!(seen.iter().all(|one| one.as_ref().unwrap() == first));
        assert_eq!(world.others.asked.all(), 2);
        assert_eq!(all::<Remote>(&world.tenant.reader()).await.len(), 1);
        let addresses: Vec<_> = (0..60).map(|n| format!("http://b.example/{n}")).collect();
        let looks = addresses
            .iter()
            .map(|address| world.media.preview(&users[0], address));
        let seen = join_all(looks).await;
        assert!(seen.iter().all(Result::is_ok));
        assert_eq!(world.others.asked.most(), 4);
    }
}

/// A page's picture that users go on to look at stays; the specification's cache of previews names it for an hour.
#[tokio::test(start_paused = true)]
async fn pictures_of_pages_are_looked_at() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let alice = user("alice");
        let seen = world.media.preview(&alice, "http://a.example/page").await;
        assert!(seen.unwrap().contains_key("og:image"));
        let used = async || {
            let kept = all::<Remote>(&world.tenant.reader()).await;
            (kept[0].0.0.clone(), kept[0].1.used_ts)
        };
        let (name, before) = used().await;
        sleep(25 * 60 * 60 * SECOND).await;
        let (server, id) = name.split_once('/').unwrap();
        let mxc = Mxc::new(server, id).unwrap();
        world.media.find(&mxc, Wanted::default()).await.unwrap();
        assert_eq!(used().await.1, before + 25 * 60 * 60 * 1_000);
    }
}

/// An upload that began in time is in time, however long it takes.
#[tokio::test(start_paused = true)]
async fn an_upload_outlasts_its_id() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let alice = user("alice");
        let created = world.media.create(&alice).await.unwrap();
        let body = stream::once(async {
            sleep(30 * 60 * SECOND).await;
            Ok(Bytes::from_static(b"slow"))
        });
        let described = Described::default();
        let upload = world
            .media
            .upload_to(&alice, &created.mxc, described, None, body.boxed());
        let tending = async {
            sleep(20 * 60 * SECOND).await;
            world.media.tend().await.unwrap();
        };
        let (done, ()) = tokio::join!(upload, tending);
        done.unwrap();
        let found = world.media.find(&created.mxc, Wanted::default()).await;
        assert_eq!(found.unwrap().size, 4);
    }
}

/// H6: of what doesn't fit into a user's quota no more is taken than would.
#[tokio::test(start_paused = true)]
async fn h6_a_quota_bounds_what_is_staged() {
    for lanes in LANES {
        let world = World::new(lanes, |config| config.max_user_bytes = Some(2_000)).await;
        let alice = user("alice");
        world.upload(&alice, &[1; 1_500]).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let endless = stream::repeat_with(move || {
            counted.fetch_add(100, Ordering::Relaxed);
            Ok(Bytes::from_static(&[0; 100]))
        });
        let described = Described::default();
        let refused = world
            .media
            .upload(&alice, described, None, endless.boxed())
            .await;
        assert!(matches!(refused, Err(MediaError::Quota)));
        assert_eq!(taken.load(Ordering::Relaxed), 600);
    }
}

/// H6: of one user's uploads a few are taken at a time, of others' as well.
#[tokio::test(start_paused = true)]
async fn h6_uploads_take_turns() {
    for lanes in LANES {
        let world = World::new(lanes, |_| {}).await;
        let begun = Arc::new(AtomicUsize::new(0));
        let slow = |user: &'static str| {
            let (media, begun) = (world.media.clone(), begun.clone());
            let body = stream::once(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                sleep(SECOND).await;
                Ok(Bytes::from_static(b"slow"))
            });
            tokio::spawn(async move {
                let described = Described::default();
                let user = self::user(user);
                media.upload(&user, described, None, body.boxed()).await
            })
        };
        let mut uploads: Vec<_> = (0..10).map(|_| slow("alice")).collect();
        uploads.push(slow("bob"));
        sleep(SECOND / 2).await;
        assert_eq!(begun.load(Ordering::Relaxed), 9);
        for upload in uploads {
            upload.await.unwrap().unwrap();
        }
    }
}
