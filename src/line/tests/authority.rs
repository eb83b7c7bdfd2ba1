//! A certificate authority of the tests' own, and servers that show its certificates.

use super::*;
use crate::line::proxy::base64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An authority of the test's own, as a file too.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = format!("authority {count}");
        params.distinguished_name.push(DnType::CommonName, number);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let name = format!("weir-test-ca-{}-{count}.pem", std::process::id());
        let file = std::env::temp_dir().join(name);
        let text = base64(certificate.der());
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|at| &text[at..text.len().min(at + 64)])
            .collect();
        let pem = format!(
            "# ours\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        fs::write(&file, pem).unwrap();
        let issuer = Issuer::new(params, key);
        Authority { issuer, file }
    }

    pub fn line(&self) -> Line {
        let mut settings = settings();
        settings.ca_file = Some(self.file.clone());
        Line::new(&settings).unwrap()
    }

    /// A server whose certificate is for `name` and valid in these years.
    pub fn server(&self, name: &str, years: (i32, i32)) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain: Vec<CertificateDer> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }

    pub fn good(&self) -> Arc<ServerConfig> {
        Arc::new(self.server("127.0.0.1", GOOD))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

pub const GOOD: (i32, i32) = (2020, 2200);

pub type Encrypted<'a> = StreamOwned<ServerConnection, &'a mut TcpStream>;

pub fn accept<'a>(config: &Arc<ServerConfig>, stream: &'a mut TcpStream) -> Encrypted<'a> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}
