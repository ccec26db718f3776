//! RocksDB's folder: its lock, its log cut and damaged.

use comity_runtime::Runtime;
use comity_storage::{
    OpenError,
    engine::{Rocks, rocks},
};

use crate::bed::{Bed, Kind, copy, put, read};

async fn refusal(path: &std::path::Path) -> String {
    let outcome = Rocks::open(rocks::Config::new(path), &Runtime::system()).await;
    match outcome.map(|engine| format!("{engine:?}")) {
        Err(OpenError::Engine(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The log that holds the latest commits.
fn log(folder: &std::path::Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).unwrap();
    let logs = files.map(|file| file.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|e| e == "log"))
        .max()
        .unwrap()
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_a_way_out() {
    let bed = Bed::new(Kind::Rocks, 4).await.unwrap();
    let why = refusal(&bed.folder()).await;
    assert!(
        why.contains("another process") && why.contains("data_dir"),
        "{why}"
    );
}

/// data-model.md, Commits: a damaged middle refuses to start and names the way back.
#[tokio::test]
async fn damage_in_the_middle_of_the_log_refuses_the_start() {
    let bed = Bed::new(Kind::Rocks, 4).await.unwrap();
    let tenant = bed.tenant().await;
    for n in 0..400 {
        put(&tenant, n, &"text ".repeat(40)).await;
    }
    let damaged = bed.folder().with_file_name("damaged");
    copy(&bed.folder(), &damaged);
    let log = log(&damaged);
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&log, bytes).unwrap();
    let why = refusal(&damaged).await;
    assert!(why.contains("damaged") && why.contains("rsync"), "{why}");
    // A log cut short that a later one follows was not torn by a crash.
    assert!(why.contains(&damaged.display().to_string()));
}

/// data-model.md, Commits: a torn tail is cut; what is left is a beginning of what was written.
#[tokio::test]
async fn a_torn_tail_is_cut() {
    let mut bed = Bed::new(Kind::Rocks, 4).await.unwrap();
    let tenant = bed.tenant().await;
    let folder = bed.folder();
    let mut lengths = Vec::new();
    for n in 0..30 {
        put(&tenant, n, &"text ".repeat(20)).await;
        lengths.push(std::fs::metadata(log(&folder)).unwrap().len());
    }
    let last = *lengths.last().unwrap();
    for cut in (lengths[9]..=last).step_by(97) {
        let torn = folder.with_file_name(format!("cut-{cut}"));
        copy(&folder, &torn);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(log(&torn))
            .unwrap();
        file.set_len(cut).unwrap();
        let engine = Rocks::open(rocks::Config::new(&torn), &Runtime::system()).await;
        bed.engine = comity_storage::Engine::Rocks(engine.unwrap());
        let tenant = bed.tenant().await;
        let whole = lengths.iter().filter(|length| **length <= cut).count();
        for n in 0..30 {
            assert_eq!(
                read(&tenant, n).await.is_some(),
                n < whole as u64,
                "{n} at {cut}"
            );
        }
        drop((tenant, std::fs::remove_dir_all(&torn)));
    }
}
