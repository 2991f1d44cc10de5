#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| disksmith_fuzz_harness::run("exfat_change", data));
