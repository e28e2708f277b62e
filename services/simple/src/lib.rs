//! The example service: `simple.add`, and `simple.wordy_add`, which itself calls `simple.add` over the bus.

mod contract;
mod handlers;

use commissaire::{
    Service,
    app::{Instance, Program, Start},
    config::{NoMembers, OwnMembers},
    layer::Traced,
};
pub use contract::{Add, Sum, WordyAdd};

/// The service as a program, and as a part of `commissaire up`.
pub const PROGRAM: Program = Program {
    name: "simple",
    about: "The example service: adds numbers",
    members: OwnMembers::of::<NoMembers>(),
    start: |start: Start| {
        Box::pin(async move {
            let running = service().metrics(start.metrics).start(start.bus).await?;
            Ok(Box::new(running) as Box<dyn Instance>)
        })
    },
};

/// What it answers.
pub fn service() -> Service<()> {
    Service::new("simple", ()).method(Add, handlers::add).method(WordyAdd, handlers::wordy_add).layer(Traced)
}
