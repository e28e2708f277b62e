//! Metrics: counters and gauges of one program, in the format of Prometheus (OpenMetrics text).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// What a program counts. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    deliveries: Family<DeliveryLabels, Counter>,
    consuming: Family<SourceLabels, Gauge>,
    connected: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    source: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let inner = Inner {
            registry: Mutex::new(Registry::with_prefix("commissaire")),
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ])
            }),
            deliveries: Family::default(),
            consuming: Family::default(),
            connected: Gauge::default(),
        };
        if let Ok(mut registry) = inner.registry.lock() {
            registry.register("calls", "Calls answered, by method and outcome", inner.calls.clone());
            registry.register("call_seconds", "Time to answer a call", inner.seconds.clone());
            registry.register(
                "deliveries",
                "Jobs and events handled, by source and outcome",
                inner.deliveries.clone(),
            );
            registry.register(
                "consuming",
                "1 while the broker hands messages to this source",
                inner.consuming.clone(),
            );
            registry.register(
                "bus_connected",
                "1 while the bus is connected to its broker",
                inner.connected.clone(),
            );
        }
        Self(Arc::new(inner))
    }
}

impl Metrics {
    /// One call of `method` ended with `outcome` after `took`.
    pub fn count_call(&self, method: &str, outcome: &'static str, took: Duration) {
        self.0.calls.get_or_create(&CallLabels { method: method.to_owned(), outcome }).inc();
        self.0.seconds.get_or_create(&MethodLabels { method: method.to_owned() }).observe(took.as_secs_f64());
    }

    /// One job or event from `source` ended with `outcome`: `ok`, `retry`, `dead`.
    pub fn count_delivery(&self, source: &str, outcome: &'static str) {
        self.0.deliveries.get_or_create(&DeliveryLabels { source: source.to_owned(), outcome }).inc();
    }

    /// Whether `source` consumes now.
    pub fn set_consuming(&self, source: &str, consuming: bool) {
        self.0.consuming.get_or_create(&SourceLabels { source: source.to_owned() }).set(i64::from(consuming));
    }

    /// Whether the bus is connected now.
    pub fn set_connected(&self, connected: bool) {
        self.0.connected.set(i64::from(connected));
    }

    /// All of it as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
