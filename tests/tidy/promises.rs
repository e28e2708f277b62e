//! The table of promises in README is what the transports say of themselves.

use commissaire::Driver;

use super::tree::top;

const BEGIN: &str = "<!-- Made of what the transports say of themselves: tests/tidy/promises.rs -->\n";
const END: &str = "<!-- End -->\n";

/// A row for each promise, a column for each transport.
fn table(drivers: &[Driver]) -> String {
    let promises: Vec<_> = drivers.iter().map(|driver| driver.promises.in_words()).collect();
    let mut text = String::from("| |");
    for driver in drivers {
        text.push_str(&format!(" `{}://` |", driver.schemes[0]));
    }
    text.push_str(&format!("\n|{}\n", "---|".repeat(drivers.len() + 1)));
    for row in 0..promises[0].len() {
        text.push_str(&format!("| {} |", promises[0][row].0));
        for kept in &promises {
            text.push_str(&format!(" {} |", kept[row].1));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_table_of_promises_in_readme_is_what_the_transports_say() {
    let readme = std::fs::read_to_string(top().join("README.md")).unwrap();
    let (_, behind) = readme.split_once(BEGIN).unwrap_or_else(|| panic!("README.md has no line {BEGIN:?}"));
    let (found, _) = behind.split_once(END).unwrap_or_else(|| panic!("README.md has no line {END:?}"));
    let wanted = table(commissaire_transports::ALL);
    assert!(
        found.trim() == wanted.trim(),
        "README.md promises something else than the transports; between its marks must stand\n\n{wanted}"
    );
}
