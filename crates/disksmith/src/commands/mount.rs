//! `mount`: a filesystem in an image, as a directory.

use std::path::PathBuf;

use disksmith_disk::{Context, Result, names};
use disksmith_export::{MountOptions, Mounted, TREE_KIND, TreeMount};
use disksmith_filesystems::{FileKind, Filesystem, errors};
use disksmith_formats::OpenMode;
use disksmith_open::{Address, Locking, open_disk, open_filesystem};

use super::Verb;
use super::common::{Keys, Purpose, Source};
use super::serving::{self, Serving};
use crate::face::{Face, Failure, Outcome, usage};
use crate::guest::path_of;

/// Options of mount(8) and ext4(5) that ask for what holds anyhow: reading changes no access
/// times, content is written before the names and lengths that lead to it, attributes and access
/// lists are kept.
const AS_IT_IS: &[&str] = &[
    "", "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group",
    "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "nostrictatime",
    "lazytime", "nolazytime", "acl", "user_xattr", "barrier", "barrier=1", "data=ordered",
    "data=writeback", "delalloc", "nodelalloc", "nodiscard", "errors=continue",
    "errors=remount-ro", "loop", "bsddf",
];

/// The arguments of `mount`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Mount {
    /// Format of the image; told from its content when not given
    #[arg(short, long, value_name = "FMT")]
    pub format: Option<String>,
    #[command(flatten)]
    pub keys: Keys,
    /// Refuse an image that refers to other files (backing file, data file)
    #[arg(long)]
    pub untrusted: bool,
    /// ro, rw, allow_other, default_permissions, suid, dev, noexec, sync; those of mount(8) that ask
    /// for what holds anyhow are taken too
    #[arg(short, value_name = "OPTION,…")]
    pub options: Vec<String>,
    /// The same as -o ro
    #[arg(short, long)]
    pub read_only: bool,
    #[command(flatten)]
    pub serving: Serving,
    /// The filesystem: IMAGE, IMAGE:PARTITION; or a directory of it, IMAGE:PARTITION:PATH
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    /// An existing directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

impl Verb for Mount {
    const NAME: &'static str = "mount";
    const ABOUT: &'static str = "Mount a filesystem of an image on a directory";

    fn run(self, _face: &Face) -> Outcome {
        let options = self.mount_options()?;
        if let Some(status) = self.serving.delegate()? {
            return Ok(status);
        }
        serving::refuse_if_mounted(&self.directory)?;
        let mut address = Address::parse(&self.address).with_format(self.format.as_deref());
        if address.part.is_none() {
            address.part = Some(String::new());
        }
        let source = Source {
            format: self.format.clone(),
            image_opts: false,
            keys: self.keys.clone(),
            untrusted: self.untrusted,
        };
        let purpose = match options.read_only || address.snapshot.is_some() {
            true => Purpose { locking: Locking::Still, ..Purpose::new(OpenMode::Read) },
            false => Purpose { locking: Locking::Serve, ..Purpose::new(OpenMode::Write) },
        };
        let opened = open_disk(&address, &source.settings(purpose)?)?;
        let read_only = opened.disk.read_only();
        let tree = open_filesystem(&opened.disk, &opened.shown, read_only)?;
        let options = MountOptions {
            kind: format!("{TREE_KIND}{}", tree.type_name()),
            read_only: read_only || tree.read_only(),
            threads: 1,
            ..options
        };
        let root = directory(&*tree, path_of(&address))
            .with_context(|| format!("Could not mount '{}'", self.address))?;
        let mount = TreeMount::below(tree.clone(), root, options.default_permissions);
        let mounted = Mounted::new(mount, &self.directory, &options)?;
        let finish = move || {
            tree.close()?;
            opened.close()
        };
        self.serving.serve(mounted, Box::new(finish))
    }
}

/// The directory at `path`.
fn directory(tree: &dyn Filesystem, path: &str) -> Result<u64> {
    let found = disksmith_filesystems::resolve(tree, &names::to_bytes(path), true)?;
    match found.kind {
        FileKind::Directory => Ok(found.inode),
        _ => Err(errors::not_a_directory()),
    }
}

impl Mount {
    fn mount_options(&self) -> std::result::Result<MountOptions, Failure> {
        let mut options = MountOptions {
            source: self.address.clone(),
            read_only: self.read_only,
            ..MountOptions::default()
        };
        let mut check = false;
        for word in self.options.iter().flat_map(|list| list.split(',')) {
            match word {
                "ro" => options.read_only = true,
                "rw" => options.read_only = false,
                "allow_other" => (options.allow_other, check) = (true, true),
                "default_permissions" => check = true,
                "suid" => options.suid = true,
                "dev" => options.dev = true,
                "nosuid" => options.suid = false,
                "nodev" => options.dev = false,
                "exec" => options.no_exec = false,
                "noexec" => options.no_exec = true,
                "sync" => options.sync = true,
                "async" => options.sync = false,
                word if AS_IT_IS.contains(&word) || word.starts_with("x-") => {}
                other => {
                    return usage(format!(
                        "mount option '{other}' is not known (ro, rw, allow_other, \
                         default_permissions, suid, dev, noexec, sync)"
                    ));
                }
            }
        }
        if (options.suid || options.dev) && !rustix::process::geteuid().is_root() {
            return usage("the mount options suid and dev are for root");
        }
        // Who mounts for himself alone owns the image, and so all that is in it.
        options.default_permissions = check;
        Ok(options)
    }
}
