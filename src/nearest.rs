//! The known name that somebody probably meant.

/// The name among `known` that is nearest to `name`, if one is near enough to be meant: at most a third of its
/// characters, and two at least, typed wrongly.
///
/// ```
/// use commissaire::nearest;
/// assert_eq!(nearest("adress", ["address", "status"]), Some("address"));
/// assert_eq!(nearest("colour", ["address", "status"]), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name of that size is no slip of the finger, and the distance takes time in proportion to it.
    if name.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(2))
        .filter(|(distance, candidate)| *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, taken out or replaced to turn `one` into `other`, without regard to case and
/// with `-` equal to `_`.
fn distance(one: &str, other: &str) -> usize {
    let fold = |text: &str| text.to_lowercase().replace('-', "_").chars().collect::<Vec<char>>();
    let (one, other) = (fold(one), fold(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
