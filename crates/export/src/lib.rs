//! Disks and filesystems for other programs: FUSE, loop devices
