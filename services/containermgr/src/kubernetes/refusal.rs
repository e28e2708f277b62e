//! What an API server, or the way to it, says when it does not do what was asked.

use std::error::Error as StdError;

use commissaire_api::container::FailureKind;
use kube::{Error, core::Status};
use rustls::{AlertDescription, CertificateError};

use crate::fault::Fault;

/// What `error` comes to. It holds no header of ours, and so no token.
pub(super) fn fault(error: &Error) -> Fault {
    match error {
        Error::Api(status) => refused(status),
        Error::SerdeError(_) => {
            Fault::new(FailureKind::Refused, "its answer is none of Kubernetes': is server_url right?")
                .maybe_executed()
        }
        // A key or a certificate that was read and is none.
        Error::RustlsTls(_) | Error::InferKubeconfig(_) | Error::TlsRequired => {
            Fault::new(FailureKind::Config, chain(error))
        }
        other => tls(other).unwrap_or_else(|| {
            let text = format!("it cannot be reached: {}", chain(other));
            Fault::new(FailureKind::Unreachable, text).maybe_executed()
        }),
    }
}

/// It has not answered in time.
pub(super) fn silent() -> Fault {
    Fault::new(FailureKind::Unreachable, "it does not answer").maybe_executed()
}

/// It does not know who we are.
pub(super) fn unknown() -> Fault {
    let text = "it does not know who we are: the token or the certificate is wrong, or has expired";
    Fault::new(FailureKind::Unauthorized, text).answered(401, "Unauthorized")
}

fn refused(status: &Status) -> Fault {
    let kind = match status.code {
        401 => return unknown(),
        403 => FailureKind::Forbidden,
        _ => FailureKind::Refused,
    };
    let text = if status.message.is_empty() { "it refuses" } else { &status.message };
    Fault::new(kind, text).answered(status.code, &status.reason)
}

/// Why a pod may not leave yet, where that is what `status` says.
pub(super) fn blocked(status: &Status) -> Option<String> {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let budget = causes.iter().find(|cause| cause.reason == "DisruptionBudget");
    match (status.code, budget) {
        (429, Some(cause)) => Some(cause.message.clone()),
        // It may have too much to do: it says when to come again.
        (429, None) => Some(status.message.clone()),
        (500, _) if status.message.contains("more than one PodDisruptionBudget") => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

/// What is wrong with certificates, if that is it.
fn tls(error: &Error) -> Option<Fault> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(certificate(error));
        }
        // What an error of the system wraps it does not call its source.
        let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = within.map(|within| within as &(dyn StdError + 'static)).or_else(|| cause.source());
    }
    None
}

fn certificate(error: &rustls::Error) -> Fault {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let told = |text: &str| Fault::new(FailureKind::Tls, text);
    match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            told("its certificate is of an unknown authority: see certificate_ca_path")
        }
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            told("its certificate has expired: it must be renewed there")
        }
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => told("its certificate is for another name: see server_url"),
        InvalidCertificate(other) => told(&format!("its certificate is not valid: {other}")),
        AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => told("it does not take our certificate: see certificate_path"),
        other => told(&format!("TLS: {other}")),
    }
}

/// An error and its causes in one line, each once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
