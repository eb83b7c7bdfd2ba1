//! TLS to an upstream: whom to trust, the handshake, and what its failures mean in plain words.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, KeyProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, InvalidMessage, RootCertStore,
};

use super::attempt::{Trouble, words};
use super::connect::Timed;

/// A clock before this is wrong: this program is younger.
const SURELY_PAST: Duration = Duration::from_secs(1_735_689_600); // 2025-01-01

/// Hosts whose sessions are remembered. A line has one, and configurations are shared.
const SESSIONS: usize = 64;

/// What a configuration was made from.
#[derive(PartialEq)]
struct Trust {
    built_in: bool,
    /// SHA-256 of the file's text.
    file: [u8; 32],
}

/// Whom to trust: `ca_file` alone if it is set, or else the built-in roots and those in
/// `also`, which is what `SSL_CERT_FILE` names. One who names a file for an upstream means to trust
/// nobody else there; the variable is set for a whole machine, often with nothing but the company's
/// own authority in it, and the public vendors have to stay reachable.
///
/// Lines that trust the same share one configuration (16 kB of roots, and the sessions).
pub fn config(ca_file: Option<&Path>, also: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let pem = match (ca_file, also) {
        (Some(path), _) => read(path)?,
        (None, Some(path)) => read(path).unwrap_or_else(|error| {
            // The variable is not ours: a stale one must not keep plain upstreams from starting,
            // and a certificate that misses it says so itself.
            log::warn!("SSL_CERT_FILE: {error}");
            Vec::new()
        }),
        (None, None) => Vec::new(),
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &pem);
    let trust = Trust {
        built_in: ca_file.is_none(),
        file: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"),
    };

    static SHARED: Mutex<Vec<(Trust, Weak<ClientConfig>)>> = Mutex::new(Vec::new());
    let mut shared = SHARED.lock();
    shared.retain(|(_, config)| config.strong_count() > 0);
    let known = shared.iter().find(|(other, _)| *other == trust);
    if let Some(config) = known.and_then(|(_, config)| config.upgrade()) {
        return Ok(config);
    }

    let mut roots = RootCertStore::empty();
    let own = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let (added, ignored) = roots.add_parsable_certificates(own);
    if let (Some(path), 0) = (ca_file, added) {
        return Err(format!("no certificate in {} can be used", path.display()));
    }
    if ignored > 0 {
        log::debug!("{ignored} of the extra CA certificates cannot be used");
    }
    if trust.built_in {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let crypto = CryptoProvider {
        key_provider: &NoKeys,
        ..provider::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    shared.push((trust, Arc::downgrade(&config)));
    Ok(config)
}

/// More than any bundle of certificates holds.
const LONGEST: u64 = 16 << 20;

fn read(path: &Path) -> Result<Vec<u8>, String> {
    crate::config::file::read(path, LONGEST)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// weir shows no certificate of its own, so nothing has to read private keys or to sign with them.
/// RSA and elliptic curves with private keys are left out of the program that way.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no private keys are used".into()))
    }
}

/// Shakes hands with `host` over a fresh connection.
pub fn handshake(
    config: &Arc<ClientConfig>,
    host: &str,
    mut wire: Timed<'_>,
) -> Result<ClientConnection, Trouble> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_string())
        .map_err(|_| Trouble::new(format!("TLS: {host} is not a host name")))?;
    let mut tls = ClientConnection::new(Arc::clone(config), name)
        .map_err(|error| Trouble::new(format!("TLS with {host}: {error}")))?;
    tls.set_buffer_limit(None);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => {
            Trouble::timeout(format!("TLS with {host}: no handshake in time"))
        }
        io::ErrorKind::UnexpectedEof => Trouble::new(format!(
            "TLS with {host}: it closed the connection in the handshake"
        )),
        _ => Trouble::new(format!("TLS with {host}: {}", words(&error))),
    };
    while tls.is_handshaking() || tls.wants_write() {
        while tls.wants_write() {
            tls.write_tls(&mut wire).map_err(failed)?;
        }
        if !tls.is_handshaking() {
            break;
        }
        if tls.read_tls(&mut wire).map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert that tells the other side; it is of no use to us whether it arrives.
            let _ = tls.write_tls(&mut wire).and_then(|_| wire.flush());
            return Err(Trouble::new(explain(host, &error, SystemTime::now())));
        }
    }
    Ok(tls)
}

/// What a failed handshake means for the person who reads the log.
pub fn explain(host: &str, error: &Error, now: SystemTime) -> String {
    let clock = format!(
        "is this machine's clock right? It says {}",
        httpdate::fmt_http_date(now)
    );
    let clock_is_wrong = now.duration_since(UNIX_EPOCH).unwrap_or_default() < SURELY_PAST;
    let why = match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("its certificate expired on {}", date(*not_after))
            }
            CertificateError::Expired => "its certificate has expired".into(),
            CertificateError::NotValidYetContext { not_before, .. } => {
                let from = date(*not_before);
                format!("its certificate is not valid before {from} ({clock})")
            }
            CertificateError::NotValidYet => {
                format!("its certificate is not valid yet ({clock})")
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                // A certificate of a shared front may have hundreds.
                let names = presented
                    .iter()
                    .take(5)
                    .map(String::as_str)
                    .collect::<Vec<_>>();
                let more = if presented.len() > 5 { ", ..." } else { "" };
                format!(
                    "its certificate is for other names: {}{more}",
                    names.join(", ")
                )
            }
            CertificateError::NotValidForName => "its certificate is for another name".into(),
            CertificateError::UnknownIssuer => {
                "its certificate comes from an unknown authority (name a CA file, or set \
                 SSL_CERT_FILE, if it is your own)"
                    .into()
            }
            CertificateError::BadSignature => {
                "its certificate is not signed by the authority that it names".into()
            }
            CertificateError::Revoked => "its certificate was revoked".into(),
            other => format!("its certificate is not valid: {other}"),
        },
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "it does not speak TLS (is this an http:// address?)".into(),
        Error::AlertReceived(alert) => format!("it refused the handshake: {alert:?}"),
        Error::PeerIncompatible(why) => format!("no common way of encrypting: {why:?}"),
        other => other.to_string(),
    };
    let expired = matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    );
    match expired && clock_is_wrong {
        true => format!("TLS with {host}: {why} ({clock})"),
        false => format!("TLS with {host}: {why}"),
    }
}

fn date(time: UnixTime) -> String {
    // `httpdate` knows no year beyond 9999, and certificates may.
    let seconds = time.as_secs().min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}
