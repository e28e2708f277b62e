//! Random programs come to what the contract says, also when the server is killed and started again in the middle.

use commissaire::testkit::{Differential, differential};

#[test]
fn random_programs_come_to_what_the_model_says() {
    differential(crate::nats);
}

#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    Differential::restarting().check(crate::nats);
}
