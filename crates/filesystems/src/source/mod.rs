//! Where the content of a new filesystem comes from.
