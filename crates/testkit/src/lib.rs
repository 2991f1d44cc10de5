//! For tests: oracles, model disks, recording, crashing and failing storage
