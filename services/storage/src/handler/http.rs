//! One request and its answer, over any connection.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// The largest answer that is read, in bytes.
const LARGEST: usize = 16 << 20;

/// All but what stands for itself in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `key` as a part of a path.
pub(super) fn encoded(key: &str) -> String {
    utf8_percent_encode(key, PATH).to_string()
}

/// Why there is no answer. Holds nothing of what was sent.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The answer to `request`, the only one on `stream`.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Zeroizing<Vec<u8>>), Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await?;
        Ok::<_, Failure>((status, Zeroizing::new(body.to_bytes().to_vec())))
    };
    // The connection moves what the exchange is made of.
    let (answer, _) = tokio::join!(answer, async { connection.await.ok() });
    answer
}
