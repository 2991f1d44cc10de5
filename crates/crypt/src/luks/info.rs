//! What a header says, for showing.

use super::Header;
use super::layout::KeySlot;

/// The facts of a header in the words of qemu-img.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Info {
    /// `ivgen-alg`: `plain64`.
    pub ivgen_alg: &'static str,
    /// `ivgen-hash-alg`: only shown for ESSIV.
    pub ivgen_hash_alg: Option<&'static str>,
    /// `detached-header`.
    pub detached_header: bool,
    /// `hash-alg`: `sha256`.
    pub hash_alg: &'static str,
    /// `cipher-alg`: `aes-256`.
    pub cipher_alg: &'static str,
    /// `cipher-mode`: `xts`.
    pub cipher_mode: &'static str,
    /// `uuid`.
    pub uuid: String,
    /// `payload-offset` in bytes.
    pub payload_offset: u64,
    /// `master-key-iters`.
    pub master_key_iters: u32,
    /// The eight slots.
    pub slots: Vec<SlotInfo>,
}

/// The facts of one key slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotInfo {
    /// Holds a key.
    pub active: bool,
    /// PBKDF2 iterations; only shown for active slots.
    pub iters: Option<u32>,
    /// Where its material is, in bytes from the start of the header.
    pub key_offset: u64,
    /// Stripes; only shown for active slots.
    pub stripes: Option<u32>,
}

impl Header {
    /// The facts for showing.
    pub fn info(&self) -> Info {
        let spec = self.spec();
        let essiv = spec.iv == crate::IvGenerator::Essiv;
        Info {
            ivgen_alg: spec.iv.name(),
            ivgen_hash_alg: spec.iv_hash.filter(|_| essiv).map(|h| h.name()),
            detached_header: self.detached(),
            hash_alg: self.hash().name(),
            cipher_alg: spec.cipher.name(),
            cipher_mode: spec.mode.name(),
            uuid: self.uuid(),
            payload_offset: self.payload_offset(),
            master_key_iters: self.master_key_iterations(),
            slots: self.raw.slots.iter().map(slot_info).collect(),
        }
    }
}

fn slot_info(slot: &KeySlot) -> SlotInfo {
    let active = slot.is_active();
    SlotInfo {
        active,
        iters: active.then_some(slot.iterations.get()),
        key_offset: slot.material_offset(),
        stripes: active.then_some(slot.stripes.get()),
    }
}
