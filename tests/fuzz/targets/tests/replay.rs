//! Every file of every corpus through its target, and each cut short.

use std::fs;
use std::path::PathBuf;

use fuzz_targets::TARGETS;

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("readable").path()).collect()
}

#[test]
fn corpora_replay() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!((1..=200).contains(&files.len()), "{name}: {} files", files.len());
        for path in files {
            let data = fs::read(&path).expect("readable");
            // Shown only if the target panics.
            println!("{}", path.display());
            target(&data);
            for cut in [1, 2, 3].map(|part| data.len() * part / 4) {
                target(&data[..cut]);
                target(&data[cut..]);
            }
        }
    }
}

#[test]
fn nothing_and_zeros_are_taken() {
    for (_, target) in TARGETS {
        target(&[]);
        target(&[0; 64]);
        target(&[0xff; 64]);
    }
}
