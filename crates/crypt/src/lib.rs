//! AES-XTS and CBC, key derivation, LUKS, the old qcow AES
