//! An authority that issues certificates to the proxies, and what its clients trust. Used by [`super`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An authority of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    /// With a new key.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificate.der().to_vec()))?;
        Ok(Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) })
    }

    /// A certificate for a name and its key, in PEM.
    fn issue(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Writes `site.crt` and `site.key`, which will be replaced, and `stays.crt` and `stays.key`, which will not.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let (certificate, key) = self.issue(name)?;
        private(&folder.join("stays.key"), &key)?;
        fs::write(folder.join("stays.crt"), certificate)?;
        self.replace(folder, name, Duration::ZERO)
    }

    /// Puts a new key and certificate in the place of `site.key` and `site.crt`. In between, for `unfit`, they do not fit.
    pub fn replace(&self, folder: &Path, name: &str, unfit: Duration) -> Result<()> {
        let (certificate, key) = self.issue(name)?;
        private(&folder.join("site.key.new"), &key)?;
        fs::write(folder.join("site.crt.new"), certificate)?;
        fs::rename(folder.join("site.key.new"), folder.join("site.key"))?;
        thread::sleep(unfit);
        Ok(fs::rename(folder.join("site.crt.new"), folder.join("site.crt"))?)
    }

    /// Clients that trust this authority alone, speak one protocol, and make a whole handshake each time, so that each looks at the
    /// certificate.
    pub fn trust(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .expect("aws-lc-rs has the default versions")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// For root alone.
fn private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}
