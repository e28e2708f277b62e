//! Nothing outside the grammar becomes a key, a name or a pattern.

use commissaire::{Address, Inbox, Key, Pattern, Token};
use proptest::{prelude::*, test_runner::Config};

/// Close to the grammar, so that limits and single wrong characters are met often.
const NEARLY: &str =
    "[a-c0Z_.*#> \n\t\0é\u{202e}＊-]{0,12}(a{0,70}\\.){0,4}[A-Za-z0-9_-]{0,70}(\\.[a-z]{1,9}){0,18}";

fn word(text: &str) -> bool {
    let allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    (1..=64).contains(&text.len()) && text.chars().all(|c| allowed.contains(c))
}

fn words(text: &str, wild: &[&str]) -> bool {
    let words: Vec<&str> = text.split('.').collect();
    text.len() <= 200 && words.len() <= 16 && words.iter().all(|text| word(text) || wild.contains(text))
}

proptest! {
    #![proptest_config(Config { cases: 12_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn only_the_grammar_passes(text in prop_oneof![any::<String>(), NEARLY]) {
        let key = Key::new(&text);
        prop_assert_eq!(key.is_ok(), words(&text, &[]), "key {:?}", text);
        prop_assert_eq!(Pattern::new(&text).is_ok(), words(&text, &["*", "#"]), "pattern {:?}", text);
        prop_assert_eq!(Token::new(&text).is_ok(), word(&text), "token {:?}", text);
        prop_assert_eq!(Address::parse("topic", &text).is_ok(), words(&text, &[]), "address {:?}", text);
        match key {
            Ok(key) => {
                prop_assert_eq!(key.as_str(), &*text);
                prop_assert!(Pattern::from(key.clone()).matches(&key));
                prop_assert_eq!(Key::new(key.tokens().collect::<Vec<_>>().join(".")).unwrap(), key);
            }
            Err(error) => prop_assert!(
                !error.to_string().contains(|c: char| c.is_control()),
                "an error shows a control character as it is: {:?}", error.to_string()
            ),
        }
    }

    #[test]
    fn a_key_with_one_character_from_outside_is_refused(at in 0..9_usize, any in any::<char>()) {
        let wrong = if any.is_ascii_alphanumeric() || "_-.".contains(any) { '*' } else { any };
        let mut text = "notify.ab".to_owned();
        text.insert(at, wrong);
        prop_assert!(Key::new(&text).is_err(), "{:?} passed", text);
    }

    #[test]
    fn only_what_is_made_as_an_inbox_is_an_inbox(text in prop_oneof![any::<String>(), "[0-9a-fA-F+-]{30,34}"]) {
        let wanted = text.len() == 32 && text.chars().all(|c| "0123456789abcdef".contains(c));
        prop_assert_eq!(text.parse::<Inbox>().is_ok(), wanted, "{:?}", text);
    }
}

#[test]
fn the_limits_are_where_they_are_said_to_be() {
    let longest_word = "a".repeat(64);
    let longest_key = [&*longest_word, &*longest_word, &*longest_word, "abcde"].join(".");
    assert_eq!(longest_key.len(), 200);
    assert!(Key::new(&longest_key).is_ok());
    assert!(Key::new(format!("{longest_key}f")).is_err());
    assert!(Key::new(format!("{longest_word}a")).is_err());
    assert!(Key::new(["a"; 16].join(".")).is_ok());
    assert!(Key::new(["a"; 17].join(".")).is_err());
    for text in ["", ".", "a.", ".a", "a..b", "*", "a.*", "a.#", "a>", "a b", "a\0", "a\r\nb", "ä", "ａ"] {
        assert!(Key::new(text).is_err(), "{text:?} passed");
    }
}

#[test]
fn inboxes_differ_and_read_back() {
    let (one, other) = (Inbox::random(), Inbox::random());
    assert_ne!(one, other);
    assert_eq!(one.to_string().parse::<Inbox>().unwrap(), one);
}

#[test]
fn a_service_is_the_key_without_its_method_except_under_jobs() {
    let service = |text: &str| Key::new(text).unwrap().service().map(|key| key.to_string()).ok();
    assert_eq!(service("storage.get").as_deref(), Some("storage"));
    assert_eq!(service("a.b.c").as_deref(), Some("a.b"));
    assert_eq!(service("jobs.clusterexec.upgrade").as_deref(), Some("jobs.clusterexec.upgrade"));
    assert_eq!(service("jobsx.upgrade").as_deref(), Some("jobsx"));
    assert_eq!(service("alone"), None);
}
