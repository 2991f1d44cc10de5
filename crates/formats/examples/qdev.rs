use disksmith_formats::{
    CheckReport, Image, OpenMode, OpenRequest, Repair, Snapshot, qcow2::Qcow2,
};
use std::sync::Arc;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let op = args[1].as_str();
    let mode = match op {
        "none" | "list" => OpenMode::Check,
        "leaks" | "all" => OpenMode::Repair,
        _ => OpenMode::Write,
    };
    let mode = if op == "list" { OpenMode::Read } else { mode };
    let file = disksmith_host::FileDisk::from_file(
        std::fs::OpenOptions::new().read(true).write(mode.writes()).open(&args[2]).unwrap(),
        std::path::Path::new(&args[2]),
        disksmith_host::OpenOptions { write: mode.writes(), ..Default::default() },
    )
    .unwrap();
    let image = match Qcow2::open(Arc::new(file), &OpenRequest { mode, ..Default::default() }) {
        Ok(i) => i,
        Err(e) => {
            println!("Could not open: {e}");
            std::process::exit(9)
        }
    };
    let repair = match op {
        "leaks" => Repair::Leaks,
        "all" => Repair::All,
        _ => Repair::None,
    };
    if !matches!(op, "none" | "leaks" | "all") {
        let r = match op {
            "list" => {
                for s in image.snapshots() {
                    println!("{s:?}")
                }
                Ok(())
            }
            "create" => {
                image.create_snapshot(Snapshot { name: args[3].clone(), ..Default::default() })
            }
            "apply" => image.apply_snapshot(&args[3]),
            "delete" => image.delete_snapshot(&args[3]),
            _ => panic!(),
        };
        if let Err(e) = r.and_then(|()| image.close()) {
            println!("{e}");
            std::process::exit(1)
        }
        return;
    }
    let r = image.check(repair, &mut |f| eprintln!("{}", f.text));
    match r.map(|r| r.unwrap()) {
        Err(e) => {
            println!("Check failed: {e}");
            std::process::exit(1)
        }
        Ok(r) => {
            let CheckReport {
                corruptions,
                leaks,
                check_errors,
                corruptions_fixed,
                leaks_fixed,
                total_clusters,
                allocated_clusters,
                fragmented_clusters,
                compressed_clusters,
                image_end_offset,
            } = r;
            println!(
                "{{\"corruptions\":{corruptions},\"leaks\":{leaks},\"check-errors\":{check_errors},\"corruptions-fixed\":{corruptions_fixed},\"leaks-fixed\":{leaks_fixed},\"total-clusters\":{total_clusters},\"allocated-clusters\":{allocated_clusters},\"fragmented-clusters\":{fragmented_clusters},\"compressed-clusters\":{compressed_clusters},\"image-end-offset\":{}}}",
                image_end_offset.unwrap_or(0)
            );
        }
    }
}
