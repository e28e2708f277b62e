//! The AMQP (RabbitMQ) transport of commissaire.
