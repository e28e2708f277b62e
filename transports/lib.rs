//! The table of transports: one row a driver. A program passes [`ALL`] to [`commissaire::connect`].

use commissaire::Driver;

/// Every transport that this build has.
pub const ALL: &[Driver] = &[
    #[cfg(feature = "memory")]
    commissaire_memory::DRIVER,
    #[cfg(feature = "memory")]
    commissaire_memory::UNIX_DRIVER,
    #[cfg(feature = "redis")]
    commissaire_redis::DRIVER,
    #[cfg(feature = "nats")]
    commissaire_nats::DRIVER,
    #[cfg(feature = "amqp")]
    commissaire_amqp::DRIVER,
    #[cfg(feature = "kombu")]
    commissaire_kombu::DRIVER,
];
