//! Image formats, one folder each
