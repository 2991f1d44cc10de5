//! Filesystems without a kernel: ext2, ext3, ext4 and FAT
