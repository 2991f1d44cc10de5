//! Making a new image, in the layout that qemu-img makes: header in cluster 0, refcount table
//! in cluster 1, the first refcount block in cluster 2, then the L1 table.

use std::sync::Arc;

use disksmith_crypt::{Cipher, CipherSpec, HashAlgorithm, IvGenerator, Mode, luks};
use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::Qcow2;
use super::layout::{self, CryptoHeader, Extensions, Header, Shape, put};
use super::unflushed::Unflushed;
use super::util::{exclusive, lock};
use crate::{
    CreateRequest, Image, OpenMode, OpenRequest, OptionKind, OptionSpec, Options, Preallocation,
    ResizeRequest,
};

const SECTOR: u64 = 512;
const AES: u32 = 1;
pub(super) const LUKS: u32 = 2;

const fn option(
    name: &'static str,
    kind: OptionKind,
    help: &'static str,
    default: Option<&'static str>,
) -> OptionSpec {
    OptionSpec { name, kind, help, default }
}

const COMPAT: OptionSpec =
    option("compat", OptionKind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])", None);
const DATA_FILE: OptionSpec =
    option("data_file", OptionKind::Text, "File name of an external data file", None);
const DATA_FILE_RAW: OptionSpec = option(
    "data_file_raw",
    OptionKind::Flag,
    "The external data file must stay valid as a raw image",
    None,
);
const ITER_TIME: OptionSpec =
    option("encrypt.iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds", None);

/// What `create -o` knows, in the order of qemu-img's `Formatting` line. `size`,
/// `backing_file` and `backing_fmt` belong to the caller.
pub(super) static OPTIONS: &[OptionSpec] = &[
    option(
        "encryption",
        OptionKind::Flag,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        None,
    ),
    option(
        "encrypt.format",
        OptionKind::Text,
        "Encrypt the image, format choices: 'aes', 'luks'",
        None,
    ),
    option(
        "encrypt.key-secret",
        OptionKind::Text,
        "ID of secret providing qcow AES key or LUKS passphrase",
        None,
    ),
    option("encrypt.cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm", None),
    option("encrypt.cipher-mode", OptionKind::Text, "Name of encryption cipher mode", None),
    option("encrypt.ivgen-alg", OptionKind::Text, "Name of IV generator algorithm", None),
    option("encrypt.ivgen-hash-alg", OptionKind::Text, "Name of IV generator hash algorithm", None),
    option("encrypt.hash-alg", OptionKind::Text, "Name of encryption hash algorithm", None),
    ITER_TIME,
    option("cluster_size", OptionKind::Size, "qcow2 cluster size", Some("65536")),
    option("extended_l2", OptionKind::Flag, "Extended L2 tables", Some("off")),
    option(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
        None,
    ),
    option(
        "compression_type",
        OptionKind::Text,
        "Compression method used for image cluster compression",
        Some("zlib"),
    ),
    option("size", OptionKind::Size, "Virtual disk size", None),
    COMPAT,
    option("backing_file", OptionKind::Text, "File name of a base image", None),
    option("backing_fmt", OptionKind::Text, "Image format of the base image", None),
    DATA_FILE,
    DATA_FILE_RAW,
    option("lazy_refcounts", OptionKind::Flag, "Postpone refcount updates", Some("off")),
    option(
        "refcount_bits",
        OptionKind::Number,
        "Width of a reference count entry in bits",
        Some("16"),
    ),
];

/// What `amend -o` knows.
pub(super) static AMEND_OPTIONS: &[OptionSpec] = &[
    option("backing_file", OptionKind::Text, "File name of a base image", None),
    option("backing_fmt", OptionKind::Text, "Image format of the base image", None),
    COMPAT,
    DATA_FILE,
    DATA_FILE_RAW,
    ITER_TIME,
    option(
        "encrypt.keyslot",
        OptionKind::Number,
        "Select a single keyslot to modify explicitly",
        None,
    ),
    option(
        "encrypt.new-secret",
        OptionKind::Text,
        "New secret to set in the matching keyslots. Empty string to erase",
        None,
    ),
    option(
        "encrypt.old-secret",
        OptionKind::Text,
        "Select all keyslots that match this password",
        None,
    ),
    option(
        "encrypt.state",
        OptionKind::Text,
        "Select new state of affected keyslots (active/inactive)",
        None,
    ),
    option("lazy_refcounts", OptionKind::Flag, "Postpone refcount updates", None),
    option("refcount_bits", OptionKind::Number, "Width of a reference count entry in bits", None),
    option("size", OptionKind::Size, "Virtual disk size", None),
];

/// The options of a new image, checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub shape: Shape,
    pub lazy_refcounts: bool,
    pub compression_type: u8,
    pub preallocation: Preallocation,
    pub data_file: bool,
    pub data_file_raw: bool,
    pub crypt_method: u32,
}

impl Plan {
    /// Reads the options, in QEMU's order of complaint. `backing`, `data_file`: whether the
    /// request names one.
    pub(super) fn new(options: &Options, backing: bool, data_file: bool) -> Result<Self> {
        let crypt_method = crypt_method(options)?;
        let version = match options.text("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => return Err(not_accepted("version", other)),
        };
        let compression_type = match options.text("compression_type") {
            None | Some("zlib") => 0,
            Some("zstd") => 1,
            Some(other) => return Err(not_accepted("compression-type", other)),
        };
        let preallocation = preallocation(options)?;
        let cluster_size = options.size("cluster_size")?.unwrap_or(65536);
        let valid = cluster_size.is_power_of_two() && (512..=2 << 20).contains(&cluster_size);
        if !valid {
            return Err(invalid("Cluster size must be a power of two between 512 and 2048k"));
        }
        let extended = options.flag("extended_l2")?.unwrap_or(false);
        let lazy_refcounts = options.flag("lazy_refcounts")?.unwrap_or(false);
        let data_file_raw = options.flag("data_file_raw")?.unwrap_or(false);
        let v2 = version < 3;
        let since_v3 = |what: &str, verb: &str| {
            invalid(format!(
                "{what} {verb} compatibility level 1.1 and above (use version=v3 or greater)"
            ))
        };
        if extended && cluster_size < 16384 {
            return Err(invalid(
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
            ));
        }
        if extended && v2 {
            return Err(since_v3("Extended L2 entries", "are only supported with"));
        }
        if backing && preallocation != Preallocation::Off && !extended {
            return Err(invalid(
                "Backing file and preallocation can only be used at the same time if extended_l2 is on",
            ));
        }
        if lazy_refcounts && v2 {
            return Err(since_v3("Lazy refcounts", "only supported with"));
        }
        let refcount_bits = options.number("refcount_bits")?.unwrap_or(16);
        if !refcount_bits.is_power_of_two() || refcount_bits > 64 {
            return Err(invalid(
                "Refcount width must be a power of two and may not exceed 64 bits",
            ));
        }
        if v2 && refcount_bits != 16 {
            return Err(invalid(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
            ));
        }
        if data_file_raw && !data_file {
            return Err(invalid("data-file-raw requires data-file"));
        }
        if data_file_raw && backing {
            return Err(invalid("Backing file and data-file-raw cannot be used at the same time"));
        }
        if data_file && v2 {
            return Err(since_v3("External data files", "are only supported with"));
        }
        if compression_type != 0 && v2 {
            return Err(since_v3("Non-zlib compression type", "is only supported with"));
        }
        let shape = Shape {
            cluster_bits: cluster_size.trailing_zeros(),
            refcount_order: refcount_bits.trailing_zeros(),
            extended,
            version,
        };
        Ok(Self {
            shape,
            lazy_refcounts,
            compression_type,
            preallocation,
            data_file,
            data_file_raw,
            crypt_method,
        })
    }
}

fn crypt_method(options: &Options) -> Result<u32> {
    let old = options.flag("encryption")?;
    let format = options.text("encrypt.format");
    if old.is_some() && format.is_some() {
        return Err(invalid(
            "'encrypt.format' and its alias 'encryption' can't be used at the same time",
        ));
    }
    let method = match format {
        None if old == Some(true) => AES,
        None => 0,
        Some("aes") => AES,
        Some("luks") => LUKS,
        Some(other) => return Err(not_accepted("format", other)),
    };
    let luks_only = options.iter().map(|(name, _)| name).find(|name| {
        name.starts_with("encrypt.") && !matches!(*name, "encrypt.format" | "encrypt.key-secret")
    });
    let no_format =
        old.is_none() && format.is_none() && options.text("encrypt.key-secret").is_some();
    match (method, luks_only) {
        (0, _) if no_format => Err(invalid("Parameter 'encrypt.format' is missing")),
        (0, Some(_)) => Err(invalid("Parameter 'encrypt.format' is missing")),
        (AES, Some(name)) => Err(invalid(format!("Parameter '{name}' is unexpected"))),
        _ => Ok(method),
    }
}

fn preallocation(options: &Options) -> Result<Preallocation> {
    match options.text("preallocation") {
        None | Some("off") => Ok(Preallocation::Off),
        Some("metadata") => Ok(Preallocation::Metadata),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(not_accepted("preallocation", other)),
    }
}

fn not_accepted(name: &str, value: &str) -> Error {
    invalid(format!("Parameter '{name}' does not accept value '{value}'"))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidInput, text)
}

/// Makes an image on empty `storage`; durable when it returns.
pub(super) fn create(storage: &Arc<dyn Disk>, request: &CreateRequest) -> Result<()> {
    let plan = Plan::new(&request.options, request.backing.is_some(), request.data_file.is_some())?;
    if plan.crypt_method != 0 && request.secret.is_none() {
        return Err(invalid("Parameter 'encrypt.key-secret' is required for cipher"));
    }
    let size = request.size.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX);
    if plan.shape.l1_entries(size).saturating_mul(8) > super::open::L1_MOST {
        return Err(Error::new(
            Kind::LimitExceeded,
            "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
        ));
    }
    write_empty(&**storage, &plan, request)?;
    let image = Qcow2::open_new(Arc::new(Unflushed(Arc::clone(storage))))?;
    if let Some((_, data)) = &request.data_file {
        image.attach_data_file(Arc::clone(data))?;
    }
    let preallocation = match plan.preallocation {
        Preallocation::Off if plan.data_file_raw => Preallocation::Metadata,
        mode => mode,
    };
    image.resize(ResizeRequest { size, preallocation })?;
    if let Some(backing) = request.backing.as_ref().filter(|backing| !backing.name.is_empty()) {
        let format = backing.format.as_deref().unwrap_or_default();
        image.name_backing(Some(backing)).with_context(|| {
            format!("Could not assign backing file '{}' with format '{format}'", backing.name)
        })?;
    }
    if plan.crypt_method == LUKS {
        image.set_up_luks(request)?;
    }
    image.close_image()?;
    if let Some((_, data)) = &request.data_file {
        data.flush()?;
    }
    storage.flush()
}

/// Header, refcount table and refcount block of an image of size 0.
fn write_empty(storage: &dyn Disk, plan: &Plan, request: &CreateRequest) -> Result<()> {
    let shape = plan.shape;
    let cluster_size = shape.cluster_size();
    let mut header = Header {
        version: shape.version,
        backing_file_offset: 0,
        backing_file_size: 0,
        cluster_bits: shape.cluster_bits,
        size: 0,
        crypt_method: if plan.crypt_method == AES { AES } else { 0 },
        l1_size: 0,
        l1_table_offset: 0,
        refcount_table_offset: cluster_size,
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: 0,
        incompatible_features: features(&[
            (plan.data_file, layout::INCOMPATIBLE_DATA_FILE),
            (plan.compression_type != 0, layout::INCOMPATIBLE_COMPRESSION),
            (shape.extended, layout::INCOMPATIBLE_EXTENDED_L2),
        ]),
        compatible_features: features(&[(plan.lazy_refcounts, layout::COMPATIBLE_LAZY_REFCOUNTS)]),
        autoclear_features: features(&[(plan.data_file_raw, layout::AUTOCLEAR_DATA_FILE_RAW)]),
        refcount_order: shape.refcount_order,
        header_length: layout::HEADER_LENGTH,
        compression_type: plan.compression_type,
        unknown_fields: Vec::new(),
    };
    let name = request.data_file.as_ref().map(|(name, _)| name.clone().into_bytes());
    let extensions = Extensions { data_file: name, ..Extensions::default() };
    let bytes = extensions
        .encode(&mut header, None)
        .ok_or_else(|| Error::new(Kind::OutOfSpace, "No space left in the file header"))?;
    let mut start = vec![0; 3 * cluster_size as usize];
    put(&mut start, 0, &bytes);
    put(&mut start, cluster_size as usize, &(2 * cluster_size).to_be_bytes());
    for cluster in 0..3 {
        let (byte, shift) = super::refcounts::position(cluster, shape.refcount_order);
        let width = (1usize << shape.refcount_order.saturating_sub(3)) - 1;
        let at = (2 * cluster_size + byte) as usize + width;
        let old = start.get(at).copied().unwrap_or(0);
        put(&mut start, at, &[old | 1 << shift]);
    }
    storage.write_at(&start, 0)
}

fn features(list: &[(bool, u64)]) -> u64 {
    list.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit)
}

impl Qcow2 {
    /// Opens an image that was just made, without its cipher.
    fn open_new(storage: Arc<dyn Disk>) -> Result<Self> {
        let secret = Some(disksmith_crypt::Secret::new(Vec::new()));
        Self::open(
            storage,
            &OpenRequest { mode: OpenMode::Write, secret, ..OpenRequest::default() },
        )
    }

    /// Makes a LUKS header in clusters of its own and names it.
    fn set_up_luks(&self, request: &CreateRequest) -> Result<()> {
        let options = luks_options(&request.options)?;
        let secret = request.secret.as_ref().map(|s| s.bytes()).unwrap_or_default();
        let created = luks::create(&options, secret)?;
        let bytes = created.to_bytes();
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        let length = bytes.len() as u64;
        let clusters = meta.shape.clusters(length);
        let offset = meta.allocate_exact(clusters, "encryption header")?;
        let mut padded = bytes;
        padded.resize((clusters * meta.shape.cluster_size()) as usize, 0);
        self.storage.write_at(&padded, offset)?;
        self.write_back(&mut meta)?;
        meta.header.crypt_method = LUKS;
        meta.extensions.crypto_header = Some(CryptoHeader { offset, length });
        meta.rewrite_header()
    }
}

/// The LUKS options, from the names that follow `encrypt.`.
pub(super) fn luks_options(options: &Options) -> Result<luks::CreateOptions> {
    let mut result = luks::CreateOptions::default();
    let text = |name: &str| options.text(name);
    let mut spec: CipherSpec = result.spec;
    if let Some(value) = text("encrypt.cipher-alg") {
        spec.cipher = Cipher::from_name(value).map_err(|_| not_accepted("cipher-alg", value))?;
    }
    if let Some(value) = text("encrypt.cipher-mode") {
        spec.mode = Mode::from_name(value).map_err(|_| not_accepted("cipher-mode", value))?;
    }
    if let Some(value) = text("encrypt.ivgen-alg") {
        spec.iv = IvGenerator::from_name(value).map_err(|_| not_accepted("ivgen-alg", value))?;
    }
    if let Some(value) = text("encrypt.ivgen-hash-alg") {
        let hash = HashAlgorithm::from_name(value);
        spec.iv_hash = Some(hash.map_err(|_| not_accepted("ivgen-hash-alg", value))?);
    }
    if let Some(value) = text("encrypt.hash-alg") {
        let hash = HashAlgorithm::from_name(value);
        result.hash = hash.map_err(|_| not_accepted("hash-alg", value))?;
    }
    if let Some(milliseconds) = options.number("encrypt.iter-time")? {
        if milliseconds == 0 {
            return Err(invalid("iter-time must be non-zero"));
        }
        result.iter_time_ms = milliseconds;
    }
    result.spec = spec;
    Ok(result)
}
