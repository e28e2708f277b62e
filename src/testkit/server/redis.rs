//! redis-server.

use std::{fs, net::Ipv4Addr, time::Duration};

use super::{Process, Program, first_line};

pub(super) const PROGRAM: Program = Program {
    name: "redis-server",
    scheme: "redis",
    patience: Duration::from_secs(30),
    beside: None,
    command: |dir, port, settings| {
        let fixed = [
            ("port", port.to_string()),
            ("bind", Ipv4Addr::LOCALHOST.to_string()),
            ("dir", dir.display().to_string()),
            ("save", String::new()),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut all: Vec<(String, String)> = fixed.chain(settings.iter().cloned()).collect();
        for (name, value) in all.iter_mut().filter(|(name, _)| name == "users") {
            let file = dir.join("users.acl");
            fs::write(&file, &*value)?;
            (*name, *value) = ("aclfile".to_owned(), file.display().to_string());
        }
        let mut command = Process::command("redis-server");
        command.args(all.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]));
        Ok(command)
    },
    answers: |stream| {
        Box::pin(async move {
            let line = first_line(stream, "PING\r\n").await?;
            Ok(line.starts_with("+PONG") || line.starts_with("-NOAUTH"))
        })
    },
};
