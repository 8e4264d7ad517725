//! Inputs that the fuzzer has found, and random ones, through every decoder.

use std::{fs, path::Path};

use adit_tests_decoders::TARGETS;
use proptest::prelude::*;

#[test]
fn corpora() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let dir = root.join(name);
        let entries =
            fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut inputs = 0;
        for entry in entries {
            let input = fs::read(entry.unwrap().path()).unwrap();
            target(&input);
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }
}
