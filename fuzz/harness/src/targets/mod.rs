//! The targets, by what they parse.

pub(crate) mod codec;
pub(crate) mod exfat;
pub(crate) mod ext;
pub(crate) mod fat;
pub(crate) mod luks;
pub(crate) mod qcow2;
pub(crate) mod tables;
pub(crate) mod text;
mod tree;
