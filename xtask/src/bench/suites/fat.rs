//! FAT volumes: made, filled and read, beside mkfs.fat and mtools.

use crate::bench::case::{Case, OURS, Suite};

/// A tree of this machine's own manuals and translations, and a large file.
const PREPARE: &str = r#"
mkdir -p tree
cp -rL /usr/share/perl /usr/share/vim /usr/share/perl5 /usr/share/zoneinfo tree/ 2>/dev/null || true
find tree -name '*[:*?"<>|\\]*' -delete
head -c 100000000 /dev/urandom > large
truncate -s 1G filled.img
mkfs.fat -F 32 filled.img
mcopy -i filled.img large ::
mcopy -i filled.img -s tree ::
"#;

pub(super) fn suite() -> Suite {
    let empty = "rm -f out.img; truncate -s 1G out.img; mkfs.fat -F 32 out.img > /dev/null";
    let clean = "fsck.fat -n out.img > /dev/null";
    Suite {
        name: "fat",
        title: "FAT beside mkfs.fat and mtools",
        text: "A volume of 1 GiB with FAT32; the tree are parts of this machine's /usr/share. Ours \
               is on the disk when it ends; mtools and mkfs.fat do not wait.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases: vec![
            Case::new("make 1 GiB")
                .job("mkfs.fat", "mkfs.fat -F 32 out.img")
                .job(OURS, "disksmith mkfs -t fat32 --force out.img")
                .before("rm -f out.img; truncate -s 1G out.img")
                .after(clean)
                .repeat(10)
                .at_most(1.0),
            Case::new("put a tree into it")
                .job("mcopy", "mcopy -i out.img -s tree ::")
                .job(OURS, "disksmith cp -r tree out.img::/")
                .before(empty)
                .after(clean)
                .at_most(1.0),
            Case::new("make it with a tree")
                .job(
                    "mkfs.fat, mcopy",
                    "mkfs.fat -F 32 out.img > /dev/null && mcopy -i out.img -s tree ::",
                )
                .job(OURS, "disksmith mkfs -t fat32 --force -d tree out.img")
                .before("rm -f out.img; truncate -s 1G out.img")
                .after(clean)
                .at_most(1.0),
            Case::new("take 100 MB out of it")
                .job("mcopy", "mcopy -n -i filled.img ::/large out")
                .job(OURS, "disksmith cp filled.img::/large out")
                .before("rm -f out")
                .after("cmp out large")
                .at_most(1.0),
            Case::new("take the tree out of it")
                .job("mcopy", "mcopy -n -s -i filled.img ::/tree out")
                .job(OURS, "disksmith cp -r filled.img::/tree out")
                .before("rm -rf out")
                .after("diff -r out tree")
                .at_most(1.0),
            Case::new("list it all")
                .job("mdir", "mdir -/ -b -i filled.img ::/")
                .job(OURS, "disksmith find filled.img::/")
                .at_most(1.0),
        ],
    }
}
