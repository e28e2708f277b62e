//! Layers: what can be put around a handler, on the calling and on the answering side alike.

mod limit;
mod metrics;
mod retry;
mod timeout;
mod trace;

pub use limit::Limit;
pub use metrics::Metered;
pub use retry::Retry;
pub use timeout::Timeout;
pub use trace::Traced;
