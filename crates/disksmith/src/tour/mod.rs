//! The guide as a program: chapters of steps as data, run on a scratch folder.

mod bytes;
mod chapter1;
mod chapter2;
mod chapter3;
mod folder;
mod look;

use std::path::PathBuf;
use std::process::Command;

use disksmith_disk::{Context, Disk, Error};
use disksmith_formats::OpenMode;
use disksmith_open::{ImageSpec, Settings};

use self::folder::Listing;
use self::look::Looks;
use crate::face::{DONE, FAILED, Face, Failure, Outcome};

/// A chapter of the guide.
pub(crate) struct Chapter {
    pub(crate) title: &'static str,
    pub(crate) sections: &'static [Section],
}

/// An example of the guide.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// What it is about, in a few lines.
    pub(crate) about: &'static str,
    pub(crate) steps: &'static [Step],
}

/// Something that is done.
pub(crate) struct Step {
    pub(crate) action: Action,
    /// What to see in what came out.
    pub(crate) remark: &'static str,
}

/// What is done.
pub(crate) enum Action {
    /// `disksmith` with these arguments.
    Run(&'static [&'static str]),
    /// The same, as a program of its own: it leaves one in the background, or ends it. Left out
    /// where there is no FUSE.
    Serve(&'static [&'static str]),
    /// The facts of a raw disk are put beside those of earlier looks at it.
    Look { image: &'static str, column: &'static str },
    /// Any program writes a file in a mount. Left out where there is no FUSE.
    Save(&'static str, &'static str),
    /// A folder is made.
    Folder(&'static str),
    /// A file is written.
    File { name: &'static str, text: &'static str },
    /// A guest writes a text to its disk.
    Guest { image: &'static str, format: &'static str, offset: u64, text: &'static str },
}

static CHAPTERS: &[&Chapter] = &[&chapter1::CHAPTER, &chapter2::CHAPTER, &chapter3::CHAPTER];

/// Runs all chapters in `folder`, or in a fresh one.
pub(crate) fn run(face: &Face, folder: Option<PathBuf>) -> Outcome {
    let folder = match folder {
        Some(folder) => folder,
        None => std::env::temp_dir().join(format!("disksmith-tour-{}", std::process::id())),
    };
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::env::set_current_dir(&folder))
        .with_context(|| format!("Could not make the folder '{}'", folder.display()))?;
    let here = std::env::current_dir().map_err(Error::from)?;
    if !Listing::read(&here).is_empty() {
        return crate::face::refuse(format!(
            "the folder '{}' is not empty: the tour makes its disks in a fresh one",
            here.display()
        ));
    }
    let mut tour = Tour { face, here: here.clone(), commands: 0, looks: Looks::default() };
    for chapter in CHAPTERS {
        tour.chapter(chapter)?;
    }
    let text = format!(
        "The tour is over: {} commands, all of them well.\nThe disks are in {} to explore; remove the folder when you are done.\n",
        tour.commands,
        here.display()
    );
    face.print(&text);
    Ok(DONE)
}

struct Tour<'a> {
    face: &'a Face,
    here: PathBuf,
    commands: usize,
    looks: Looks,
}

impl Tour<'_> {
    fn chapter(&mut self, chapter: &Chapter) -> Result<(), Failure> {
        self.face.print(&format!("{}\n{}\n\n", chapter.title, "=".repeat(chapter.title.len())));
        for section in chapter.sections {
            self.face.print(&format!(
                "{}\n{}\n{}\n\n",
                section.title,
                "-".repeat(section.title.len()),
                section.about
            ));
            for step in section.steps {
                self.step(step)?;
            }
        }
        Ok(())
    }

    fn went(&mut self, status: u8) -> Result<(), Failure> {
        self.commands += 1;
        if status == DONE {
            return Ok(());
        }
        self.face.complain(&format!("the tour ends here: status {status}"));
        Err(Failure::Status(FAILED))
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let before = Listing::read(&self.here);
        match &step.action {
            Action::Run(words) => {
                self.face.print(&format!("$ disksmith {}\n", words.join(" ")));
                let words: Vec<_> = words.iter().map(|word| (*word).to_string()).collect();
                let status = crate::native::run(self.face, &words);
                self.went(status)?;
            }
            Action::Serve(words) if !has_fuse() => {
                let words = words.join(" ");
                self.face.print(&format!("(without FUSE, this is left out: disksmith {words})\n"));
            }
            Action::Serve(words) => {
                self.face.print(&format!("$ disksmith {}\n", words.join(" ")));
                let program = std::env::current_exe().map_err(Error::from)?;
                let status = Command::new(program).args(*words).status().map_err(Error::from)?;
                self.went(if status.success() { DONE } else { FAILED })?;
            }
            Action::Look { image, column } => {
                self.face.print(&format!("(looking at {image})\n"));
                let text = self.looks.look(image, column)?;
                self.face.print(&text);
            }
            Action::Save(..) if !has_fuse() => {}
            Action::Save(path, text) => {
                self.face.print(&format!("$ echo '{text}' > {path}\n"));
                std::fs::write(path, format!("{text}\n")).map_err(Error::from)?;
            }
            Action::Folder(name) => {
                self.face.print(&format!("$ mkdir {name}\n"));
                std::fs::create_dir_all(name).map_err(Error::from)?;
            }
            Action::File { name, text } => {
                self.face.print(&format!("$ cat > {name}\n{text}"));
                std::fs::write(name, text).map_err(Error::from)?;
            }
            Action::Guest { image, format, offset, text } => {
                self.face
                    .print(&format!("(a guest writes \"{text}\" at byte {offset} of {image})\n"));
                guest_write(image, format, *offset, text)?;
            }
        }
        let changes = Listing::read(&self.here).changes_since(&before);
        if !changes.is_empty() {
            self.face.print(&changes);
        }
        if !step.remark.is_empty() {
            self.face.print(&format!("  => {}\n", step.remark));
        }
        self.face.print("\n");
        Ok(())
    }
}

/// Whether mounts of our own can be made.
fn has_fuse() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok()
}

fn guest_write(image: &str, format: &str, offset: u64, text: &str) -> Result<(), Error> {
    let spec = ImageSpec::from_name(image, Some(format))?;
    let node = disksmith_open::open(&spec, &Settings::new(OpenMode::Write))?;
    node.image.write_at(text.as_bytes(), offset)?;
    node.image.flush()
}
