//! Running what must hold over a corpus and mutations of it.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What parsers stumble over.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"\0",
    b"\x7f",
    b".",
    b"#",
    b"*",
    b"/",
    b"//",
    b":",
    b"@",
    b"?",
    b"%40",
    b"%",
    b"\\",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"1e999",
    b"-0",
    b"null",
    b"\"a\":",
    b"\xff\xff",
    b"\xc3\xa9",
    "\u{202e}".as_bytes(),
    b"aaaaaaaa",
];

/// Runs each of `targets` over its corpus, the folder of its name in `integration/fuzz/corpus`, and over 20,000 mutations
/// of that, or a million with `COMMISSAIRE_LONG=1`. Panics with what does not hold, and the seed.
pub fn check(targets: &[(&str, fn(&[u8]))]) {
    let rounds = if std::env::var_os("COMMISSAIRE_LONG").is_some() { 1_000_000 } else { 20_000 };
    let seed = std::env::var("COMMISSAIRE_SEED")
        .ok()
        .map(|seed| seed.parse().expect("COMMISSAIRE_SEED is a number"));
    let seed: u64 = seed.unwrap_or_else(rand::random);
    for (name, holds) in targets {
        let corpus = corpus(name);
        for data in &corpus {
            holds(data);
        }
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..rounds {
            let data = mutated(&corpus, &mut random);
            let held = catch_unwind(|| holds(&data));
            assert!(
                held.is_ok(),
                "{name}, round {round} of COMMISSAIRE_SEED={seed}: {}",
                data.escape_ascii()
            );
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    // In an order that is the same wherever they lie.
    files.sort();
    let corpus: Vec<_> = files.into_iter().filter_map(|file| fs::read(file).ok()).collect();
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus
}

/// One of the corpus, changed in a few places.
fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut data = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=data.len());
        let end = random.random_range(at..=data.len().min(at + 8));
        match random.random_range(0..5) {
            0 => drop(data.splice(at..end, [])),
            1 => drop(data.splice(at..at, PIECES[random.random_range(0..PIECES.len())].iter().copied())),
            2 => drop(data.splice(at..end, PIECES[random.random_range(0..PIECES.len())].iter().copied())),
            3 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                data.splice(at..end, other[from..].iter().copied());
            }
        }
    }
    data
}
