//! The matcher agrees with the plainest one that can be written.

use std::time::{Duration, Instant};

use commissaire::{Key, Pattern};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::Config};

fn plain(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skipped| plain(rest, &key[skipped..])),
        Some((&"*", rest)) => !key.is_empty() && plain(rest, &key[1..]),
        Some((word, rest)) => key.first() == Some(word) && plain(rest, &key[1..]),
    }
}

proptest! {
    #![proptest_config(Config { cases: 40_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn matching_is_what_the_plain_reference_says(
        pattern in vec(select(vec!["a", "b", "ab", "*", "#", "#"]), 1..8),
        key in vec(select(vec!["a", "b", "ab"]), 1..9),
    ) {
        let matches = Pattern::new(pattern.join(".")).unwrap().matches(&Key::new(key.join(".")).unwrap());
        prop_assert_eq!(matches, plain(&pattern, &key), "{:?} {:?}", pattern, key);
    }
}

#[test]
fn the_reference_itself_knows_right_from_wrong() {
    assert!(plain(&["a", "#"], &["a"]) && plain(&["#", "c"], &["a", "b", "c"]) && plain(&["*"], &["a"]));
    assert!(!plain(&["a", "*"], &["a"]) && !plain(&["#", "b"], &["a"]) && !plain(&["*"], &["a", "b"]));
}

#[test]
fn no_pattern_takes_long() {
    let pattern = Pattern::new(["#.a"; 7].join(".")).unwrap();
    let key = Key::new(["a"; 15].join(".") + ".b").unwrap();
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(!pattern.matches(&key));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "1,000 matches took {took:?}");
}
