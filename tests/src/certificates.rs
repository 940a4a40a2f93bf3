//! A chain of certificates as authorities issue them: root, intermediate and leaf. Used by tests and programs that put the proxy
//! before clients which look at certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Files of a chain, in PEM.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Leaf and intermediate, as a server sends them.
    pub chain: PathBuf,
    /// The leaf's key, for root alone.
    pub key: PathBuf,
    /// What clients trust.
    pub root: PathBuf,
    /// The same in DER.
    pub root_der: Vec<u8>,
}

/// Longer than an authority's certificate lives nowadays is a finding for scanners.
const LEAF_DAYS: i64 = 90;
const AUTHORITY_DAYS: i64 = 3650;

impl Chain {
    /// Makes one with P-256 keys for these names and addresses, and writes it to a folder.
    ///
    /// # Errors
    /// A name that is none, or a folder that can't be written to.
    pub fn issue(folder: &Path, names: &[&str]) -> Result<Self> {
        let root = CertifiedIssuer::self_signed(authority("Lab Root"), KeyPair::generate()?)?;
        let middle = CertifiedIssuer::signed_by(authority("Lab Intermediate"), KeyPair::generate()?, &root)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names)?;
        lives(&mut leaf, LEAF_DAYS);
        leaf.distinguished_name.push(DnType::CommonName, "lab");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &middle)?;
        let files = Self {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
            root: folder.join("root.pem"),
            root_der: root.der().to_vec(),
        };
        fs::write(&files.chain, certificate.pem() + &middle.pem())?;
        fs::write(&files.key, leaf_key.serialize_pem())?;
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600))?;
        fs::write(&files.root, root.pem())?;
        Ok(files)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    lives(&mut params, AUTHORITY_DAYS);
    params
}

/// From yesterday on: clocks differ.
fn lives(params: &mut CertificateParams, days: i64) {
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    params.not_before = yesterday.into();
    params.not_after = params.not_before + std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
}
