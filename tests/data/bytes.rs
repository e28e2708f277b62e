//! What must hold for any bytes holds for the corpus of the fuzz targets and for mutations of it.

use commissaire::testkit::fuzz;

#[test]
fn what_must_hold_for_any_bytes_holds_for_mutations_of_the_corpus() {
    fuzz::check(fuzz::ALL);
}
