//! Certificates by ACME (RFC 8555): what the daemon and the process that talks to the authority say to each other.
//!
//! ```text
//! daemon ── Order ──► client process ── HTTPS ──► authority
//!   │  ◄── Account, Present, Issued, Failed ──┘        │
//!   └── Present ──► worker ◄──────────── challenge ────┘
//! ```
//!
//! The client process lives for one order. It has no more rights than the proxy's worker, but that it may read what everybody may:
//! it parses what a stranger sends. It has the account's key, which signs each of its requests; the certificate's key never leaves the
//! daemon, which sends the request that is signed with it (PKCS#10). The daemon judges what comes back
//! ([`crate::control`]): an answer to a challenge is for a name of the order, a certificate goes with its key and has its names.

pub mod certificate;
pub mod client;
mod http;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::Challenge;

/// Longest token of a challenge, bytes: theirs have 43 (128 bits at least, RFC 8555 section 8.1).
const LONGEST_TOKEN: usize = 256;
/// SHA-256 of a key, base64url without padding (RFC 7638).
const THUMBPRINT: usize = 43;

/// What is to be ordered.
#[derive(Serialize, Deserialize)]
pub struct Order {
    /// The URL of the authority's directory.
    pub directory: String,
    /// Where it writes to.
    pub contact: Vec<String>,
    /// The account with it, as [`FromClient::Account`] gave it; `None`: there is none yet.
    pub account: Option<Account>,
    /// PEM: whose certificate its server has; `None`: of one that this host trusts.
    pub roots: Option<String>,
    /// The names of the certificate.
    pub names: Vec<String>,
    /// How they are shown to be ours.
    pub challenge: Challenge,
    /// The request for the certificate, DER.
    pub request: Vec<u8>,
}

/// An account with an authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What it was registered with.
    pub contact: Vec<String>,
    /// Its URL and its private key, as instant-acme writes them.
    pub credentials: serde_json::Value,
}

impl fmt::Debug for Account {
    /// Without its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("contact", &self.contact).finish_non_exhaustive()
    }
}

/// What the daemon says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToClient {
    /// Order this; the first message.
    Order(Box<Order>),
    /// The answers are in service: the authority may look.
    Presented,
}

/// What the client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromClient {
    /// Keep this: an account that is new, or has changed.
    Account(Account),
    /// Put these in service, and say so.
    Present(Vec<Proof>),
    /// The certificate; the last message.
    Issued {
        /// Chain, PEM, the server's own first.
        chain: String,
    },
    /// There is none; the last message.
    Failed {
        /// Why.
        why: String,
        /// The authority does not want to be asked before, seconds since 1970 (`Retry-After`).
        not_before: Option<u64>,
    },
}

/// What becomes of a certificate that an authority issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuing {
    /// Its file, as the plan has it.
    pub file: String,
    /// One that nobody trusts stands in for it.
    pub stands_in: bool,
    /// Orders that failed, in a row.
    pub failures: u32,
}

/// What answers a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The answer to `GET /.well-known/acme-challenge/TOKEN` (RFC 8555 section 8.3).
    Http {
        /// The last segment of the path.
        token: String,
        /// The key authorization, `TOKEN.THUMBPRINT`.
        content: String,
    },
    /// What a certificate for this name has in it (RFC 8737 section 3).
    Tls {
        /// The server name.
        name: String,
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
}

impl Proof {
    /// Whether it may be put in service for an order of these names: whatever is served comes from a process that parses what
    /// strangers send.
    pub fn is_good(&self, names: &[String], challenge: Challenge) -> bool {
        let base64url =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match self {
            Self::Http { token, content } => {
                let thumbprint = content.strip_prefix(token.as_str()).and_then(|rest| rest.strip_prefix('.'));
                challenge == Challenge::Http01
                    && (1..=LONGEST_TOKEN).contains(&token.len())
                    && base64url(token)
                    && thumbprint.is_some_and(|rest| rest.len() == THUMBPRINT && base64url(rest))
            }
            Self::Tls { name, .. } => challenge == Challenge::TlsAlpn01 && names.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_answers_a_challenge_is_put_in_service() {
        let names = ["a.example".to_owned()];
        let thumbprint = "x".repeat(THUMBPRINT);
        let http = |token: &str, content: &str| {
            Proof::Http { token: token.to_owned(), content: content.to_owned() }
                .is_good(&names, Challenge::Http01)
        };
        assert!(http("abc-_9", &format!("abc-_9.{thumbprint}")));
        for (token, content) in [
            ("", format!(".{thumbprint}")),
            ("../x", format!("../x.{thumbprint}")),
            ("abc", "abc.<script>".to_owned()),
            ("abc", format!("abcd.{thumbprint}")),
            ("abc", "abc".to_owned()),
        ] {
            assert!(!http(token, &content), "{token} {content}");
        }
        let tls = |name: &str| Proof::Tls { name: name.to_owned(), digest: [0; 32] };
        assert!(tls("a.example").is_good(&names, Challenge::TlsAlpn01));
        assert!(!tls("b.example").is_good(&names, Challenge::TlsAlpn01));
        assert!(!tls("a.example").is_good(&names, Challenge::Http01));
    }

    #[test]
    fn an_accounts_key_is_never_written_to_a_log() {
        let account =
            Account { contact: Vec::new(), credentials: serde_json::json!({ "key_pkcs8": "secret" }) };
        assert!(!format!("{:?}", FromClient::Account(account)).contains("secret"));
    }
}
