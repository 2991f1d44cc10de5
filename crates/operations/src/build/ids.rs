//! Ids that follow from what a disk is made of.

use sha2::{Digest, Sha256};

/// Makes ids. The same input gives the same ones.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    seed: [u8; 32],
}

impl Ids {
    /// From what the files are and the user's own word.
    pub(super) fn new(fingerprints: &[[u8; 32]], seed: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"disksmith build");
        for fingerprint in fingerprints {
            hash.update(fingerprint);
        }
        hash.update(seed.unwrap_or_default());
        Self { seed: hash.finalize().into() }
    }

    /// A UUID for the thing of that name: version 8, whose content is the maker's own (RFC 9562,
    /// section 5.8).
    pub(super) fn uuid(&self, what: &str) -> [u8; 16] {
        uuid::Builder::from_custom_bytes(self.bytes(what)).into_uuid().into_bytes()
    }

    /// A number that is not zero.
    pub(super) fn number(&self, what: &str) -> u32 {
        let [a, b, c, d, ..] = self.bytes(what);
        u32::from_le_bytes([a, b, c, d]).max(1)
    }

    fn bytes(&self, what: &str) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(what);
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_input() {
        let ids = Ids::new(&[[1; 32]], None);
        assert_eq!(ids.uuid("disk"), Ids::new(&[[1; 32]], None).uuid("disk"));
        assert_ne!(ids.uuid("disk"), ids.uuid("root"));
        assert_ne!(ids.uuid("disk"), Ids::new(&[[1; 32]], Some("other")).uuid("disk"));
        assert_ne!(ids.uuid("disk"), Ids::new(&[[2; 32]], None).uuid("disk"));
        assert_eq!(ids.uuid("disk")[6] >> 4, 8);
        assert_ne!(ids.number("disk"), 0);
    }
}
