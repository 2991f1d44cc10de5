//! What a cut left, as a reader and a checker see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{Image, OpenMode, OpenRequest, Repair, driver};
use disksmith_testkit::{Verdict, oracle};

/// The disk (under no name) and its snapshots.
pub(crate) type Views = BTreeMap<String, Vec<u8>>;

/// What is found at a state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// What a check says; the content is right, and stays so when the image is repaired.
    Sound(Verdict),
    /// The image does not open, or shows what was neither there before nor is there after.
    Wrong(String),
}

fn open(file: &MemoryDisk, mode: OpenMode) -> Result<Arc<dyn Image>, String> {
    let request = OpenRequest { mode, ..OpenRequest::default() };
    let open = driver("qcow2").expect("registered").open;
    open(Arc::new(file.clone()), request).map_err(|e| format!("opening: {e}"))
}

/// All that can be read of the first file, on top of whichever of the others it names.
pub(crate) fn views(files: &[MemoryDisk], names: &[&str]) -> Result<Views, String> {
    let top = open(&files[0], OpenMode::Read)?;
    if let Some(backing) = top.backing() {
        let at = names.iter().position(|n| *n == backing.name).ok_or("names another file")?;
        top.attach_backing(Some(open(&files[at], OpenMode::Read)?)).map_err(|e| e.to_string())?;
    }
    let mut views = Views::from([(String::new(), content(&*top)?)]);
    for snapshot in top.snapshots() {
        let view = top.open_snapshot(&snapshot.name).map_err(|e| e.to_string())?;
        views.insert(snapshot.name.clone(), content(&*view)?);
    }
    Ok(views)
}

fn content(disk: &dyn Image) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).map_err(|e| format!("reading: {e}"))?;
    Ok(bytes)
}

/// Looks at a state. With `asked`, qemu-img check must come to the same verdict.
pub(crate) fn judge(
    files: &[MemoryDisk],
    names: &[&str],
    (before, after): (&Views, &Views),
    asked: bool,
) -> Found {
    let seen = || -> Result<Verdict, String> {
        allowed(&views(files, names)?, before, after)?;
        let verdicts: Vec<Verdict> = files.iter().map(check).collect::<Result<_, _>>()?;
        if asked {
            ask(files, names, &verdicts)?;
        }
        let worst = verdicts.into_iter().max_by_key(|v| *v as u8).unwrap_or(Verdict::Clean);
        let repaired: Vec<_> = files.iter().map(repair).collect::<Result<_, _>>()?;
        allowed(&views(&repaired, names)?, before, after).map_err(|e| format!("repaired: {e}"))?;
        Ok(worst)
    };
    seen().map_or_else(Found::Wrong, Found::Sound)
}

fn check(file: &MemoryDisk) -> Result<Verdict, String> {
    let image = open(file, OpenMode::Read)?;
    let report = image.check(Repair::None, &mut |_| {}).map_err(|e| format!("check: {e}"))?;
    let report = report.ok_or("no check")?;
    Ok(match (report.corruptions, report.leaks) {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Leaks,
        _ if image.dirty() == Some(true) => Verdict::Marked,
        _ => Verdict::Corrupt,
    })
}

/// `check -r all`, and whether it is clean then.
fn repair(file: &MemoryDisk) -> Result<MemoryDisk, String> {
    let storage = Arc::new(file.clone());
    let request = OpenRequest { mode: OpenMode::Repair, ..OpenRequest::default() };
    let open = driver("qcow2").expect("registered").open;
    let disk: Arc<dyn Disk> = storage.clone();
    let image = open(disk, request).map_err(|e| format!("repairing: {e}"))?;
    image.check(Repair::All, &mut |_| {}).map_err(|e| format!("repairing: {e}"))?;
    image.close().map_err(|e| format!("repairing: {e}"))?;
    drop(image);
    match check(&storage)? {
        Verdict::Clean => Ok((*storage).clone()),
        verdict => Err(format!("{verdict:?} after check -r all")),
    }
}

/// Every sector is as before or as after, and no snapshot is lost.
fn allowed(views: &Views, before: &Views, after: &Views) -> Result<(), String> {
    for (name, content) in views {
        let known = [before.get(name), after.get(name)];
        if !known.iter().flatten().any(|known| known.len() == content.len()) {
            return Err(format!("'{name}' has {} bytes", content.len()));
        }
        for (index, sector) in content.chunks(512).enumerate() {
            // Past the end of the shorter one: what a disk that grew shows there.
            let same = |known: &&Vec<u8>| match known.chunks(512).nth(index) {
                Some(there) => there == sector,
                None => sector.iter().all(|byte| *byte == 0),
            };
            if !known.iter().flatten().any(same) {
                return Err(format!("'{name}': sector {index} is neither old nor new"));
            }
        }
    }
    let kept = |name: &&String| after.contains_key(*name) && !views.contains_key(*name);
    match before.keys().find(kept) {
        Some(name) => Err(format!("snapshot '{name}' is lost")),
        None => Ok(()),
    }
}

/// The same verdicts from qemu-img, which opens the files that an image names, too.
fn ask(files: &[MemoryDisk], names: &[&str], ours: &[Verdict]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    for (file, name) in files.iter().zip(names) {
        std::fs::write(folder.path().join(name), file.to_bytes()).map_err(|e| e.to_string())?;
    }
    for (name, ours) in names.iter().zip(ours) {
        let (status, text) = oracle::qemu_check("qcow2", &folder.path().join(name));
        let right = match ours {
            Verdict::Clean => status == 0,
            Verdict::Leaks => status == 3,
            Verdict::Marked | Verdict::Corrupt => matches!(status, 1 | 2),
        };
        assert!(right, "{name}: we say {ours:?}, qemu-img check {status}: {text}");
    }
    Ok(())
}
