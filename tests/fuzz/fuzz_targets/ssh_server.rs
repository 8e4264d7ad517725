#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_tests_decoders::ssh_server(data));
