//! Partition types: names, and short words for the usual ones.

mod gpt_names;
mod mbr_names;

use disksmith_disk::{Error, Kind, Result};

use crate::{Guid, Label, PartitionType};

/// MBR code: the primary extended partition as DOS addresses it.
pub const MBR_EXTENDED: u8 = 0x05;
/// MBR code: an extended partition that is addressed by sector number only.
pub const MBR_EXTENDED_LBA: u8 = 0x0f;
/// MBR code: an extended partition that only Linux sees.
pub const MBR_EXTENDED_LINUX: u8 = 0x85;
/// MBR code: the rest of the disk belongs to a GPT.
pub const MBR_PROTECTIVE: u8 = 0xee;
/// MBR code of a Linux filesystem.
pub const MBR_LINUX: u8 = 0x83;

/// GPT type of a Linux filesystem.
pub const GPT_LINUX: Guid = Guid::from_u128(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4);
/// GPT type of an EFI system partition.
pub const GPT_ESP: Guid = Guid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);
/// GPT type of Windows data.
pub const GPT_MICROSOFT_DATA: Guid = Guid::from_u128(0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7);

/// A type that has a short word, with its MBR code and its GPT type where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Shortcut {
    /// The words, the one to show first.
    pub words: &'static [&'static str],
    /// The MBR code.
    pub mbr: Option<u8>,
    /// The GPT type.
    pub gpt: Option<Guid>,
}

const fn both(words: &'static [&'static str], mbr: u8, gpt: u128) -> Shortcut {
    Shortcut { words, mbr: Some(mbr), gpt: Some(Guid::from_u128(gpt)) }
}

const fn gpt_only(words: &'static [&'static str], gpt: u128) -> Shortcut {
    Shortcut { words, mbr: None, gpt: Some(Guid::from_u128(gpt)) }
}

const fn mbr_only(words: &'static [&'static str], mbr: u8) -> Shortcut {
    Shortcut { words, mbr: Some(mbr), gpt: None }
}

/// The words for types, and at the same time the pairs that a conversion between the two sorts
/// of table follows (the first that fits). One-letter words are sfdisk's.
pub const SHORTCUTS: &[Shortcut] = &[
    both(&["linux", "L"], 0x83, 0x0FC63DAF_8483_4772_8E79_3D69D8477DE4),
    both(&["swap", "S"], 0x82, 0x0657FD6D_A4AB_43C4_84E5_0933C84B4F4F),
    both(&["esp", "uefi", "efi", "U"], 0xef, 0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B),
    both(&["lvm", "V"], 0x8e, 0xE6D6D379_F507_44C2_A23C_238F2A3DF928),
    both(&["raid", "R"], 0xfd, 0xA19D880F_05FC_4D3B_A006_743F0F84911E),
    both(&["ntfs", "windows", "microsoft-data"], 0x07, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    both(&["fat32"], 0x0c, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    both(&["fat16"], 0x0e, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    both(&["exfat"], 0x07, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    both(&["windows-recovery"], 0x27, 0xDE94BBA4_06D1_4D40_A16A_BFD50179D6AC),
    both(&["xbootldr", "boot"], 0xea, 0xBC13C2FF_59E6_4262_A352_B275FD6F7172),
    both(&["prep"], 0x41, 0x9E1A2D38_C612_4316_AA26_8B49521E5A8B),
    both(&["freebsd"], 0xa5, 0x516E7CB4_6ECF_11D6_8FF8_00022D09712B),
    both(&["openbsd"], 0xa6, 0x824CC7A0_36A8_11E3_890A_952519AD3F61),
    both(&["netbsd"], 0xa9, 0x49F48D5A_B10E_11DC_B99B_0019D1879648),
    both(&["hfs+", "hfsplus", "apple-hfs"], 0xaf, 0x48465300_0000_11AA_AA11_00306543ECAC),
    both(&["haiku", "befs"], 0xeb, 0x42465331_3BA3_10F1_802A_4861696B7521),
    both(&["solaris"], 0xbf, 0x6A898CC3_1DD2_11B2_99A6_080020736631),
    both(&["plan9"], 0x39, 0xC91818F9_8025_47AF_89D2_F030D7000C2C),
    both(&["vmfs"], 0xfb, 0xAA31E02A_400F_11DB_9590_000C2911D1B8),
    gpt_only(&["bios-boot", "bios", "bios-grub"], 0x21686148_6449_6E6F_744E_656564454649),
    gpt_only(&["home", "H"], 0x933AC7E1_2EB4_4F13_B844_0E14E2AEF915),
    gpt_only(&["srv"], 0x3B8F8425_20E0_4F3B_907F_1A25A76F98E8),
    gpt_only(&["var"], 0x4D21B016_B534_45C2_A9FB_5C16E091FD2D),
    gpt_only(&["var-tmp", "tmp"], 0x7EC6F557_3BC5_4ACA_B293_16EF5DF639D1),
    gpt_only(&["user-home"], 0x773F91EF_66D4_49B5_BD83_D683BF40AD16),
    gpt_only(&["root", "root-x86-64"], 0x4F68BCE3_E8CD_4DB1_96E7_FBCAF984B709),
    gpt_only(&["root-x86"], 0x44479540_F297_41B2_9AF7_D131D5F0458A),
    gpt_only(&["root-arm64"], 0xB921B045_1DF0_41C3_AF44_4C6F280D3FAE),
    gpt_only(&["root-arm"], 0x69DAD710_2CE4_4E3C_B16C_21A1D49ABED3),
    gpt_only(&["root-riscv64"], 0x72EC70A6_CF74_40E6_BD49_4BDA08E8F224),
    gpt_only(&["root-ppc64le"], 0xC31C45E6_3F39_412E_80FB_4809C4980599),
    gpt_only(&["root-s390x"], 0x5EEAD9A9_FE09_4A1E_A1D7_520D00531306),
    gpt_only(&["usr", "usr-x86-64"], 0x8484680C_9521_48C6_9C11_B0720656F69E),
    gpt_only(&["usr-arm64"], 0xB0E01050_EE5F_4390_949A_9101B17104E9),
    gpt_only(&["root-verity", "root-x86-64-verity"], 0x2C7357ED_EBD2_46D9_AEC1_23D437EC2BF5),
    gpt_only(&["usr-verity", "usr-x86-64-verity"], 0x77FF5F63_E7B6_4633_ACF4_1565B864C0E6),
    gpt_only(&["luks"], 0xCA7D7CCB_63ED_4C53_861C_1742536059CC),
    gpt_only(&["msr", "microsoft-reserved"], 0xE3C9E316_0B5C_4DB8_817D_F92DF00215AE),
    gpt_only(&["apfs", "apple-apfs"], 0x7C3457EF_0000_11AA_AA11_00306543ECAC),
    mbr_only(&["extended", "E", "Ex"], MBR_EXTENDED),
    mbr_only(&["extended-lba"], MBR_EXTENDED_LBA),
    mbr_only(&["fat12"], 0x01),
];

/// Further MBR codes that mean the same as a GPT type when a table is converted.
const MBR_ALIASES: &[(u8, u128)] = &[
    (0x01, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    (0x04, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    (0x06, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
    (0x0b, 0xEBD0A0A2_B9E5_4433_87C0_68B6B72699C7),
];

/// The name that fdisk prints for a type; `None` for a type without one.
pub fn name(kind: PartitionType) -> Option<&'static str> {
    match kind {
        PartitionType::Mbr(code) => {
            mbr_names::MBR_TYPES.iter().find(|(c, _)| *c == code).map(|(_, name)| *name)
        }
        PartitionType::Gpt(guid) => {
            gpt_names::GPT_TYPES.iter().find(|(g, _)| *g == guid.as_u128()).map(|(_, name)| *name)
        }
    }
}

/// All named types of a sort of table: text form and name, in fdisk's order.
pub fn all(label: Label) -> Vec<(PartitionType, &'static str)> {
    match label {
        Label::Mbr => {
            mbr_names::MBR_TYPES.iter().map(|(c, n)| (PartitionType::Mbr(*c), *n)).collect()
        }
        Label::Gpt => gpt_names::GPT_TYPES
            .iter()
            .map(|(g, n)| (PartitionType::Gpt(Guid::from_u128(*g)), *n))
            .collect(),
        Label::None => Vec::new(),
    }
}

/// True for the MBR codes of partitions that hold logical ones.
pub fn is_extended(code: u8) -> bool {
    matches!(code, MBR_EXTENDED | MBR_EXTENDED_LBA | MBR_EXTENDED_LINUX)
}

/// Reads a type for a table of sort `label`: a word of [`SHORTCUTS`], a hexadecimal MBR code
/// (`83`, `0x83`), a GUID, or the name that fdisk prints (letter case does not matter).
///
/// An MBR code is also understood for a GPT, where it has a counterpart, as sgdisk does; and a
/// GUID for an MBR.
pub fn parse(text: &str, label: Label) -> Result<PartitionType> {
    let shortcut = SHORTCUTS.iter().find(|s| s.words.contains(&text)).or_else(|| {
        SHORTCUTS
            .iter()
            .find(|s| s.words.iter().any(|w| w.len() > 2 && w.eq_ignore_ascii_case(text)))
    });
    let found = match (shortcut, label) {
        (Some(s), Label::Mbr) => s.mbr.map(PartitionType::Mbr),
        (Some(s), _) => s.gpt.map(PartitionType::Gpt),
        (None, _) => None,
    };
    found
        .or_else(|| parse_number(text, label))
        .or_else(|| {
            all(label).into_iter().find(|(_, n)| n.eq_ignore_ascii_case(text)).map(|(kind, _)| kind)
        })
        .ok_or_else(|| unknown_type(text, label, shortcut.is_some()))
}

fn parse_number(text: &str, label: Label) -> Option<PartitionType> {
    let kind = match text.parse::<Guid>() {
        Ok(guid) => PartitionType::Gpt(guid),
        Err(_) => {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            PartitionType::Mbr(u8::from_str_radix(digits, 16).ok()?)
        }
    };
    match (kind, label) {
        (PartitionType::Mbr(_), Label::Gpt) | (PartitionType::Gpt(_), Label::Mbr) => {
            counterpart(kind)
        }
        _ => Some(kind),
    }
}

fn unknown_type(text: &str, label: Label, other_label: bool) -> Error {
    let sort = if label == Label::Mbr { "an MBR" } else { "a GPT" };
    let why = match other_label {
        true => format!("the partition type '{text}' does not exist in {sort}"),
        false => format!("'{text}' is not a partition type of {sort}"),
    };
    Error::new(Kind::InvalidInput, why).with_hint(
        "Give a word such as linux, swap, esp, lvm, raid, bios-boot, a hexadecimal code, a GUID or the name that fdisk prints.",
    )
}

/// The type that means the same in the other sort of table.
pub fn counterpart(kind: PartitionType) -> Option<PartitionType> {
    match kind {
        PartitionType::Mbr(code) => SHORTCUTS
            .iter()
            .find(|s| s.mbr == Some(code))
            .and_then(|s| s.gpt)
            .or_else(|| {
                MBR_ALIASES.iter().find(|(c, _)| *c == code).map(|(_, g)| Guid::from_u128(*g))
            })
            .map(PartitionType::Gpt),
        PartitionType::Gpt(guid) => SHORTCUTS
            .iter()
            .find(|s| s.gpt == Some(guid))
            .and_then(|s| s.mbr)
            .map(PartitionType::Mbr),
    }
}

/// The short word for a type, if it has one.
pub fn word(kind: PartitionType) -> Option<&'static str> {
    SHORTCUTS
        .iter()
        .find(|s| match kind {
            PartitionType::Mbr(code) => s.mbr == Some(code),
            PartitionType::Gpt(guid) => s.gpt == Some(guid),
        })
        .and_then(|s| s.words.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_codes_and_names() {
        let mbr = |text| parse(text, Label::Mbr).unwrap();
        assert_eq!(mbr("linux"), PartitionType::Mbr(0x83));
        assert_eq!(mbr("8e"), PartitionType::Mbr(0x8e));
        assert_eq!(mbr("0x07"), PartitionType::Mbr(7));
        assert_eq!(mbr("Linux swap / Solaris"), PartitionType::Mbr(0x82));
        assert_eq!(mbr(&GPT_ESP.to_string()), PartitionType::Mbr(0xef));
        assert_eq!(parse("esp", Label::Gpt).unwrap(), PartitionType::Gpt(GPT_ESP));
        assert_eq!(parse("83", Label::Gpt).unwrap(), PartitionType::Gpt(GPT_LINUX));
        assert_eq!(parse("linux filesystem", Label::Gpt).unwrap(), PartitionType::Gpt(GPT_LINUX));
        assert!(parse("bios-boot", Label::Mbr).is_err());
        assert!(parse("nonsense", Label::Gpt).is_err());
    }

    #[test]
    fn every_shortcut_has_a_name() {
        for shortcut in SHORTCUTS {
            if let Some(code) = shortcut.mbr {
                assert!(name(PartitionType::Mbr(code)).is_some(), "{:?}", shortcut.words);
            }
            if let Some(guid) = shortcut.gpt {
                assert!(name(PartitionType::Gpt(guid)).is_some(), "{:?}", shortcut.words);
            }
        }
    }
}
