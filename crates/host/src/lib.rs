//! This machine: files and block devices, holes, reflinks, locks, safe replace
