//! Lines of a turn are written when the turn ends, without anything else that wakes the writer.

use std::time::{Duration, Instant};

#[test]
fn lines_of_a_turn_are_written_after_it() {
    let path = std::env::temp_dir().join(format!("logging-turn-{}", std::process::id()));
    let options = logging::Options { level: 2, file: Some(path.clone()), module_tag: false };
    logging::init(options).unwrap();
    for n in 0..3 {
        // The writer has written what came before and sleeps; if it does not yet, nothing is lost.
        std::thread::sleep(Duration::from_millis(50));
        let turn = logging::turn();
        log::info!("first of turn {n}");
        log::info!("second of turn {n}");
        drop(turn);
        let last = format!("second of turn {n}\n");
        let end = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(&last)) {
            assert!(Instant::now() < end, "the writer was not woken");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");

    // A turn that says very much does not lose it: the writer takes some before the turn ends.
    std::thread::sleep(Duration::from_millis(50));
    let turn = logging::turn();
    let line = "x".repeat(1_000);
    (0..1_100).for_each(|_| log::info!("{line}"));
    let end = Instant::now() + Duration::from_secs(10);
    while !std::fs::metadata(&path).is_ok_and(|file| file.len() > 500_000) {
        assert!(Instant::now() < end, "the writer was not woken in the middle of a turn");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(turn);
    std::fs::remove_file(&path).unwrap();
}
