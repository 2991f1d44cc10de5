//! Partition tables: MBR with logical partitions, and GPT
