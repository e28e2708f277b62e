//! Random programs come to what the contract says, within one process and through the socket.

use commissaire::testkit::differential;

#[test]
fn random_programs_come_to_what_the_model_says() {
    differential(crate::conformance::memory::target);
}

#[test]
fn random_programs_through_the_socket_come_to_what_the_model_says() {
    differential(crate::conformance::unix::target);
}
