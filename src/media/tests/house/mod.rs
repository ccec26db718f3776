//! Media on a disk in memory, among servers that are as a test wants them.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use comity_media::{
    Config, Elsewhere, Media, Renderer,
    check::{self, Finding},
};
use comity_protocol::id::OwnedServerName;
use comity_runtime::Runtime;
use comity_storage::{
    Engine, Lanes, Options, Range, Reader, Store, Table, Tenant, TenantId, engine::Memory,
};
use image::{Rgb, RgbImage, codecs::png::PngEncoder};

/// The numbers of lanes that every test runs with.
pub const LANES: [u8; 2] = [1, 4];

pub async fn tenant(disk: &Memory, lanes: u8, run: u64) -> Tenant {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let runtime = Runtime::simulated(run);
    let store = Store::new(Engine::Memory(disk.clone()), options, runtime);
    store.tenant(TenantId(1)).await.unwrap()
}

pub fn config(folder: &Path) -> Config {
    Config {
        server_name: "a.test".try_into().unwrap(),
        folder: folder.to_owned(),
        bucket: None,
        max_upload_bytes: 100_000,
        max_user_bytes: Some(1_000_000),
        max_remote_bytes: 100_000,
        max_cache_bytes: 1 << 30,
        fetch_bucket_bytes: 1 << 30,
        previews: true,
        max_pending_uploads: 5,
        pending_lifetime: Duration::from_secs(60),
    }
}

pub fn open(
    tenant: &Tenant,
    config: Config,
    others: Arc<dyn Elsewhere>,
    renderer: Arc<dyn Renderer>,
) -> Media {
    let media = Media::open(tenant.clone(), config, renderer).unwrap();
    media.use_elsewhere(others);
    media
}

pub async fn all<T: Table>(reader: &Reader) -> Vec<(T::Key, T::Value)> {
    let rows = reader.scan::<T>(Range::everywhere(|_| {})).await.unwrap();
    rows.into_iter()
        .map(|(key, row)| (key, row.value))
        .collect()
}

/// A file whose thumbnails are other files.
pub fn picture() -> Bytes {
    let mut bytes = Vec::new();
    let picture = RgbImage::from_pixel(100, 100, Rgb([1, 2, 3]));
    picture
        .write_with_encoder(PngEncoder::new(&mut bytes))
        .unwrap();
    bytes.into()
}

/// What the check finds, by what it is about.
pub async fn findings(tenant: &Tenant, folder: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let server_name: OwnedServerName = "a.test".try_into().unwrap();
    let mut to = |finding| found.push(finding);
    let blobs = (folder, None);
    check::tenant(&tenant.reader(), &server_name, blobs, &mut to)
        .await
        .unwrap();
    found
}
