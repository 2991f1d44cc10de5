//! Tables for people: as fdisk prints them, free space, and a bar to scale.

mod bar;
mod columns;
mod cylinders;
mod fdisk;
mod free;
mod size;

pub use bar::bar;
pub use cylinders::cylinders;
pub use fdisk::fdisk;
pub use free::free;
pub use size::short_size;

/// The name that Linux and fdisk give to a partition: `disk.raw1`, but `disk0p1` after a digit.
pub fn device_name(device: &str, number: u32) -> String {
    let separator = if device.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{device}{separator}{number}")
}
