//! What the first connection failed for.

use async_nats::ConnectErrorKind;
use commissaire::{Error, ErrorKind};

/// Why the first connection failed, without a word of what was given to the library. `secure`: it was to be one over TLS.
pub(crate) fn refused(place: &str, secure: bool, error: &async_nats::ConnectError) -> Error {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let lower = cause.to_lowercase();
    let forbidden = |why: &str| Error::new(ErrorKind::Forbidden, format!("{place} refused us: {why}"));
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            forbidden("user, password, token or key are not accepted: check bus_uri")
        }
        ConnectErrorKind::Authentication => {
            forbidden("the nkey or the credentials cannot be used: check their file")
        }
        ConnectErrorKind::TimedOut => Error::new(ErrorKind::Timeout, format!("{place} does not answer")),
        _ if lower.contains("authorization violation") || lower.contains("user authentication") => {
            forbidden("user, password, token or key are not accepted: check bus_uri")
        }
        _ if lower.contains("fatal alert") => forbidden(
            "it refused our TLS, or wants a certificate of ours that it knows: see cert_file and key_file",
        ),
        _ if lower.contains("unknownissuer") && !secure => Error::unavailable(format!(
            "{place} wants TLS: write tls://, with ca_file if the authority is yours"
        )),
        _ if lower.contains("unknownissuer") => {
            forbidden("its certificate is of an unknown authority: give ca_file, if it is yours")
        }
        _ if lower.contains("corrupt message") => {
            Error::unavailable(format!("{place} speaks no TLS: write nats://, or another port"))
        }
        _ if lower.contains("expired") => forbidden("its certificate has expired: renew it"),
        _ if lower.contains("notvalidforname") || lower.contains("not valid for name") => {
            forbidden("its certificate is for another name: write that host into bus_uri")
        }
        _ if lower.contains("certificate") => forbidden(&format!("TLS: {cause}")),
        _ if lower.contains("closed") || lower.contains("broken pipe") || lower.contains("reset") => {
            Error::unavailable(format!(
                "{place} ended the connection at once: does it want TLS, or a certificate of ours?"
            ))
        }
        kind => {
            let lines: String = cause.escape_default().take(200).collect();
            Error::unavailable(format!(
                "{place} cannot be reached: {kind}: {lines}: check bus_uri and that the server runs"
            ))
        }
    }
}
