//! Asking the admin address of a program.

use std::time::Duration;

use commissaire::testkit::{Failure, Outcome, within};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// How long an answer may take: health that makes a supervisor wait is none.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// GET `path` from `place`: `ADDRESS:PORT`, or the path of a socket.
pub async fn get(place: &str, path: &str) -> Outcome<Answer> {
    let asked = async {
        if place.contains('/') {
            ask(UnixStream::connect(place).await?, path).await
        } else {
            ask(TcpStream::connect(place).await?, path).await
        }
    };
    within(format_args!("GET {path} from {place}"), LIMIT, asked).await?
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> Outcome<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let odd = || Failure::new(format!("not an answer over HTTP: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(odd)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
