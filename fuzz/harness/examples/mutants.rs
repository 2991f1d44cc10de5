//! Writes mutants of a target's seeds into a folder, one file each: for programs that are to be
//! run on them. `mutants TARGET FOLDER FIRST COUNT`

use std::path::Path;

use disksmith_fuzz_harness::{TARGETS, mutate};
use disksmith_testkit::Rng;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder, first, count] = arguments.as_slice() else {
        panic!("usage: mutants TARGET FOLDER FIRST COUNT")
    };
    let target = TARGETS.iter().find(|target| target.name == *name).expect("a target");
    let (first, count): (u64, u64) = (first.parse().expect("FIRST"), count.parse().expect("COUNT"));
    let seeds = (target.seeds)();
    for number in first..first + count {
        let mut rng = Rng::new(number);
        let seed: &Vec<u8> = rng.pick(&seeds);
        let mut data = mutate::mutant(seed, target.fields, &mut rng);
        if let (Some(fix), true) = (target.fix, rng.one_in(2)) {
            fix(&mut data);
        }
        std::fs::write(Path::new(folder).join(number.to_string()), data).expect("writing");
    }
}
