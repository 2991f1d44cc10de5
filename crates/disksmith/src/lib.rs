//! Inspect, make, convert, partition, format, fill, mount and repair virtual disks
