//! What can be odd about a partition table.

use std::fmt;

/// How bad an oddity is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Unusual and harmless.
    Note,
    /// Works with most systems; some will complain.
    Warning,
    /// Wrong: data is out of reach or at risk.
    Error,
}

macro_rules! oddities {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident;)*) => {
        /// The sorts of oddity. [`name`](Self::name) is stable, for scripts.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum OddityKind { $($(#[$doc])* $variant,)* }

        impl OddityKind {
            /// All sorts.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// A stable name in kebab-case.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
        }
    };
}

oddities! {
    /// The backup GPT cannot be read although the primary one can.
    BackupDamaged "backup-damaged" Error;
    /// The two copies of the GPT are each valid and differ.
    BackupMismatch "backup-mismatch" Error;
    /// There is no backup GPT at all.
    BackupMissing "backup-missing" Error;
    /// The backup GPT is not in the last sector: the disk has grown.
    BackupNotAtEnd "backup-not-at-end" Warning;
    /// A boot flag is neither 0 nor 0x80.
    BootFlag "boot-flag" Warning;
    /// Two or more partitions are marked bootable.
    BootSeveral "boot-several" Warning;
    /// The cylinder addresses do not agree with the sector numbers.
    ChsMismatch "chs-mismatch" Note;
    /// Two GPT partitions have the same unique id.
    DuplicateId "duplicate-id" Error;
    /// An extended boot record lists more than one partition or more than one link.
    EbrExtra "ebr-extra-entries" Warning;
    /// A link of the chain leads outside of the extended partition or the disk.
    EbrLink "ebr-link" Error;
    /// The chain of extended boot records comes back to itself.
    EbrLoop "ebr-loop" Error;
    /// An extended boot record lies inside the data of a logical partition.
    EbrOverlap "ebr-overlap" Error;
    /// An extended boot record has no signature.
    EbrSignature "ebr-signature" Error;
    /// The chain has more than 256 records.
    EbrTooMany "ebr-too-many" Error;
    /// A partition ends before it starts or has no length.
    Empty "empty" Error;
    /// Two or more extended partitions.
    ExtendedSeveral "extended-several" Error;
    /// A GPT is left over on a disk that has an ordinary MBR.
    GptRemains "gpt-remains" Warning;
    /// Sector 0 announces a GPT and neither copy can be read.
    GptUnreadable "gpt-unreadable" Error;
    /// The checksum of the entries is wrong.
    EntriesCrc "entries-crc" Error;
    /// The entries lie outside of the disk or over the header.
    EntriesLocation "entries-location" Error;
    /// The number or size of the entries is not possible.
    EntriesSize "entries-size" Error;
    /// The checksum of the header is wrong.
    HeaderCrc "header-crc" Error;
    /// A header does not give its own sector rightly.
    HeaderLocation "header-location" Error;
    /// Reserved bytes of a header are not zero.
    HeaderReserved "header-reserved" Note;
    /// The revision of a header is not 1.0.
    HeaderRevision "header-revision" Warning;
    /// There is no `EFI PART` where a header should be.
    HeaderSignature "header-signature" Error;
    /// The length of a header is not possible.
    HeaderSize "header-size" Error;
    /// Sector 0 of a GPT disk lists further partitions.
    HybridMbr "hybrid-mbr" Note;
    /// A logical partition lies outside of the extended one.
    LogicalOutside "logical-outside" Error;
    /// A partition does not start on a 1 MiB boundary.
    Misaligned "misaligned" Note;
    /// Moving a partition's data was interrupted.
    MoveInterrupted "move-interrupted" Error;
    /// A name is not valid UTF-16.
    NameInvalid "name-invalid" Warning;
    /// A partition lies, in part, outside of the disk.
    OutOfBounds "out-of-bounds" Error;
    /// A partition lies, in part, outside of the range that the GPT allows.
    OutsideUsable "outside-usable" Error;
    /// Two partitions share sectors.
    Overlap "overlap" Error;
    /// The primary GPT cannot be read although the backup can.
    PrimaryDamaged "primary-damaged" Error;
    /// Sector 0 of a GPT disk does not protect it.
    ProtectiveMissing "protective-missing" Error;
    /// The protective entry does not cover the disk.
    ProtectiveSize "protective-size" Warning;
    /// The protective entry does not start at sector 1.
    ProtectiveStart "protective-start" Error;
    /// The table was made for another sector size than the disk's.
    SectorSize "sector-size" Warning;
    /// Sector 0 lists partitions but lacks its signature.
    SignatureMissing "signature-missing" Error;
    /// An entry has a length but no type.
    TypeMissing "type-missing" Warning;
    /// The range that the GPT allows for partitions is not possible.
    UsableRange "usable-range" Error;
    /// A GPT id is all zeroes.
    ZeroId "zero-id" Warning;
}

/// Something about a table that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Oddity {
    /// Which sort.
    pub kind: OddityKind,
    /// The partition it is about, if it is about one.
    pub partition: Option<u32>,
    /// One line for people, with the figures.
    pub detail: String,
}

impl Oddity {
    pub(crate) fn new(kind: OddityKind, detail: impl Into<String>) -> Self {
        Self { kind, partition: None, detail: detail.into() }
    }

    pub(crate) fn of(kind: OddityKind, partition: u32, detail: impl Into<String>) -> Self {
        Self { kind, partition: Some(partition), detail: detail.into() }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}

/// `name: detail`.
impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}
