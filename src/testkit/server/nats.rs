//! nats-server with JetStream.

use std::{fmt::Write, fs, net::Ipv4Addr, time::Duration};

use super::{Process, Program, first_line};

pub(super) const PROGRAM: Program = Program {
    name: "nats-server",
    scheme: "nats",
    patience: Duration::from_secs(30),
    beside: None,
    command: |dir, port, settings| {
        let mut text = format!(
            "listen: \"{}:{port}\"\njetstream {{ store_dir: \"{}\" }}\n",
            Ipv4Addr::LOCALHOST,
            dir.join("jetstream").display()
        );
        for (name, value) in settings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        }
        let file = dir.join("nats.conf");
        fs::write(&file, text)?;
        let mut command = Process::command("nats-server");
        command.arg("--config").arg(file);
        Ok(command)
    },
    answers: |stream| {
        Box::pin(async move {
            // A server that wants TLS or a login answers otherwise, but it answers.
            Ok(!first_line(stream, "CONNECT {\"verbose\":false}\r\nPING\r\n").await?.is_empty())
        })
    },
};
