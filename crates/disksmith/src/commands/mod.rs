//! The verbs. Each file holds one: its arguments as a clap struct, and what it does. To add
//! one, write the file and add its line to the list below.

use clap::{ArgMatches, Command};

use crate::face::{Face, Outcome};

pub(crate) mod common;
pub(crate) mod serving;

/// A verb of the command line.
pub(crate) trait Verb: clap::Args + Sized {
    /// The word after `disksmith`.
    const NAME: &'static str;
    /// What it does, in one line.
    const ABOUT: &'static str;

    /// Does it.
    fn run(self, face: &Face) -> Outcome;
}

/// A verb in the list.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) command: fn() -> Command,
    pub(crate) run: fn(&ArgMatches, &Face) -> Outcome,
}

macro_rules! verbs {
    ($($module:ident :: $verb:ident),* $(,)?) => {
        $(pub(crate) mod $module;)*
        /// All verbs, in the order of the help.
        pub(crate) static VERBS: &[Entry] = &[$(entry::<$module::$verb>()),*];
    };
}

verbs![
    info::Info,
    map::Map,
    check::Check,
    create::Create,
    convert::Convert,
    compare::Compare,
    measure::Measure,
    commit::Commit,
    rebase::Rebase,
    resize::Resize,
    snapshot::Snapshot,
    bitmap::Bitmap,
    amend::Amend,
    dd::Dd,
    partition::PartitionVerb,
    ls::Ls,
    stat::Stat,
    cat::Cat,
    find::Find,
    df::Df,
    du::Du,
    cp::Cp,
    mkdir::Mkdir,
    rm::Rm,
    mv::Mv,
    ln::Ln,
    chmod::Chmod,
    chown::Chown,
    tar::Tar,
    mkfs::Mkfs,
    fsck::Fsck,
    label::Label,
    tune::Tune,
    mount::Mount,
    umount::Umount,
    attach::Attach,
    detach::Detach,
    build::BuildVerb,
    clone::CloneVerb,
    grow::Grow,
    shrink::Shrink,
    bench::Bench,
    tour::Tour,
    completions::Completions,
    man::Man,
];

const fn entry<V: Verb>() -> Entry {
    Entry {
        name: V::NAME,
        command: || V::augment_args(Command::new(V::NAME)).about(V::ABOUT),
        run: |matches, face| match V::from_arg_matches(matches) {
            Ok(verb) => verb.run(face),
            Err(error) => crate::face::usage(error.to_string()),
        },
    }
}
