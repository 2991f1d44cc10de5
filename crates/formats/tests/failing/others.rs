//! Raw images and LUKS volumes.

use std::sync::Arc;

use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Options, Preallocation, ResizeRequest, driver,
};
use disksmith_testkit::tagged;

use crate::common::options;
use crate::sweep::{Files, Run, WHOLE, WHOLE_AND_HALF, fail_each};

const SIZE: u64 = 64 << 10;

fn create(format: &str, files: Files<'_>, text: &str) -> Result<()> {
    let secret = Some(Secret::new(b"first".into()));
    let request =
        CreateRequest { size: SIZE, options: options(text), secret, ..CreateRequest::default() };
    (driver(format).unwrap().create.unwrap())(&files[0], &request)
}

fn open(format: &str, file: &Arc<dyn Disk>, mode: OpenMode, word: &str) -> Result<Arc<dyn Image>> {
    let secret = Some(Secret::new(word.into()));
    let options = if format == "raw" { options("guard=on") } else { Options::new() };
    (driver(format).unwrap().open)(file.clone(), OpenRequest { mode, secret, options })
}

fn content(image: &dyn Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0; image.size() as usize];
    image.read_at(&mut bytes, 0)?;
    image.map(0, image.size())?;
    Ok(bytes)
}

fn change(image: &dyn Image) -> Result<()> {
    image.write_at(&tagged(2, 100, 9000), 100)?;
    image.write_zeroes(20_480, 4096, ZeroMode::Unmap)?;
    image.discard(40_960, 4096)?;
    image.close()
}

fn seed(format: &str) -> MemoryDisk {
    let file = Arc::new(MemoryDisk::new(0));
    let disk: Arc<dyn Disk> = file.clone();
    create(format, std::slice::from_ref(&disk), "iter-time=1").unwrap();
    let image = open(format, &disk, OpenMode::Write, "first").unwrap();
    image.write_at(&tagged(1, 0, SIZE), 0).unwrap();
    image.close().unwrap();
    MemoryDisk::clone(&file)
}

/// Outside of what the change is about, all is as before; within, each sector is old or new.
fn kept(seen: &[u8], old: &[u8], new: &[u8], what: &str) {
    for (number, sector) in seen.chunks(512).enumerate() {
        let of = |all: &[u8]| all.chunks(512).nth(number).map(<[u8]>::to_vec);
        let ok = [of(old), of(new)].iter().any(|it| it.as_deref() == Some(sector));
        assert!(ok, "{what}: sector {number} is neither old nor new");
    }
}

#[test]
fn reading_and_changing() {
    for format in ["raw", "luks"] {
        let seed = seed(format);
        let see = |file: &MemoryDisk| {
            let disk: Arc<dyn Disk> = Arc::new(file.clone());
            content(&*open(format, &disk, OpenMode::Read, "first").unwrap()).unwrap()
        };
        let start = [seed.clone()];
        let read = |files: Files<'_>| content(&*open(format, &files[0], OpenMode::Read, "first")?);
        fail_each(&start, format, WHOLE, &read, &|run: Run<Vec<u8>>| run.told());
        let write = |files: Files<'_>| change(&*open(format, &files[0], OpenMode::Write, "first")?);
        let new = {
            let file = Arc::new(seed.clone());
            write(&[file.clone() as Arc<dyn Disk>]).unwrap();
            see(&file)
        };
        fail_each(&start, format, WHOLE_AND_HALF, &write, &|run: Run<()>| {
            run.told();
            kept(&see(&run.files[0]), &see(&seed), &new, &run.what);
        });
    }
}

#[test]
fn making_and_resizing() {
    let blank = [MemoryDisk::new(0)];
    for format in ["raw", "luks"] {
        for preallocation in ["off", "falloc", "full"] {
            let text = format!("preallocation={preallocation},iter-time=1");
            let make = |files: Files<'_>| create(format, files, &text);
            fail_each(&blank, format, WHOLE, &make, &|run: Run<()>| run.told());
        }
        let seed = [seed(format)];
        for preallocation in [Preallocation::Off, Preallocation::Falloc, Preallocation::Full] {
            let grow = |files: Files<'_>| {
                let image = open(format, &files[0], OpenMode::Write, "first")?;
                image.resize(ResizeRequest { size: SIZE + 8192, preallocation })
            };
            fail_each(&seed, format, WHOLE, &grow, &|run: Run<()>| run.told());
        }
    }
}

#[test]
fn passwords() {
    let seed = [seed("luks")];
    let amend = |image: &dyn Image, text: &str| image.amend(&options(text), true, &mut |_, _| {});
    let swap = |files: Files<'_>| {
        let image = open("luks", &files[0], OpenMode::Write, "first")?;
        amend(&*image, "state=active,new-secret=second,iter-time=1")?;
        amend(&*image, "state=active,new-secret=third,iter-time=1,keyslot=1")?;
        amend(&*image, "state=inactive,keyslot=0,old-secret=first")
    };
    fail_each(&seed, "passwords", WHOLE_AND_HALF, &swap, &|run: Run<()>| {
        run.told();
        let file: Arc<dyn Disk> = Arc::new(run.files[0].clone());
        let opens = |word: &&str| open("luks", &file, OpenMode::Read, word).is_ok();
        assert!(["first", "second", "third"].iter().any(opens), "{}: nobody gets in", run.what);
    });
}

#[test]
fn looking() {
    let seed = [seed("luks")];
    let look = |files: Files<'_>| {
        open("luks", &files[0], OpenMode::Inspect, "")?.facts().map(|facts| format!("{facts:?}"))
    };
    fail_each(&seed, "info", WHOLE, &look, &|run: Run<String>| run.told());
}
