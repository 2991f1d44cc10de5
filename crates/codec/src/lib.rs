//! Deflate, zstd and the other compressors behind one cluster-codec interface
