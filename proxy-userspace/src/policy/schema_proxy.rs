//! The sections of the L7 proxy as serde sees them: every key, its type, nothing resolved.
//!
//! Beside [`super::schema`], and used like it: filled by [`super::document`], read by [`super::validate`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::report::Span;
use super::schema::{Ban, Names};
use super::units::{Bind, CountRate, Host, ServerAddress, Size, TimeSpan};
use crate::proxy::plan::{Challenge, LogFormat, TlsVersion, UpstreamProtocol};

/// A list, or a single item of it.
#[derive(Debug)]
pub(super) enum Several<T> {
    One(T),
    List(Vec<Spanned<T>>),
}

impl<T: Clone> Several<T> {
    /// All of them, and where each stands.
    pub(super) fn items(given: &Spanned<Self>) -> Vec<(T, Span)> {
        match given.get_ref() {
            Self::One(item) => vec![(item.clone(), given.span())],
            Self::List(list) => list.iter().map(|item| (item.get_ref().clone(), item.span())).collect(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Several<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list such as [\"…\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(Several::One)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                T::deserialize(IntoDeserializer::<E>::into_deserializer(number)).map(Several::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                super::schema::collect(seq).map(Several::List)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// Headers of answers, by name.
pub(super) type Headers = BTreeMap<Spanned<String>, Spanned<String>>;

/// `[proxy]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table such as { user = \"nobody\" }")]
pub(super) struct Proxy {
    pub(super) user: Option<Spanned<String>>,
    pub(super) trusted: Option<Spanned<Names>>,
    pub(super) threads: Option<Spanned<i64>>,
    pub(super) max_connections: Option<Spanned<i64>>,
    pub(super) max_connections_per_source: Option<Spanned<i64>>,
    pub(super) access_log: Option<Spanned<AccessLog>>,
    pub(super) headers: Option<Headers>,
    pub(super) max_target: Option<Spanned<Size>>,
    pub(super) max_headers: Option<Spanned<Size>>,
    pub(super) max_header_count: Option<Spanned<i64>>,
    pub(super) max_body: Option<Spanned<Size>>,
    pub(super) buffer_memory: Option<Spanned<Size>>,
    pub(super) handshake_timeout: Option<Spanned<TimeSpan>>,
    pub(super) header_timeout: Option<Spanned<TimeSpan>>,
    pub(super) body_timeout: Option<Spanned<TimeSpan>>,
    pub(super) send_timeout: Option<Spanned<TimeSpan>>,
    pub(super) idle_timeout: Option<Spanned<TimeSpan>>,
    pub(super) tunnel_timeout: Option<Spanned<TimeSpan>>,
    pub(super) drain_timeout: Option<Spanned<TimeSpan>>,
    pub(super) abuse: Option<Spanned<Ban>>,
}

/// Where answered requests are noted: a path, or a table.
#[derive(Debug)]
pub(super) enum AccessLog {
    File(String),
    Table(AccessLogTable),
}

/// The access log in its long form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLogTable {
    pub(super) file: Option<Spanned<String>>,
    pub(super) format: Option<LogFormat>,
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AccessLogVisitor;

        impl<'de> Visitor<'de> for AccessLogVisitor {
            type Value = AccessLog;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table such as { file = \"/var/log/tollgate/access.log\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AccessLog, E> {
                Ok(AccessLog::File(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AccessLog, A::Error> {
                AccessLogTable::deserialize(MapAccessDeserializer::new(map)).map(AccessLog::Table)
            }
        }

        deserializer.deserialize_any(AccessLogVisitor)
    }
}

/// `[listeners.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { bind = \":80\" }")]
pub(super) struct Listener {
    pub(super) bind: Option<Spanned<Several<Bind>>>,
    pub(super) http2: Option<Spanned<bool>>,
    pub(super) tls: Option<Spanned<Tls>>,
}

/// TLS of a listener.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { certificates = [{ chain = \"/etc/ssl/site.crt\", key = \"/etc/ssl/site.key\" }] }"
)]
pub(super) struct Tls {
    pub(super) certificates: Option<Spanned<Vec<Spanned<Certificate>>>>,
    pub(super) min_version: Option<Spanned<TlsVersion>>,
    pub(super) ciphers: Option<Spanned<Several<String>>>,
}

/// A certificate: its files, or who issues it.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { chain = \"/etc/ssl/site.crt\", key = \"/etc/ssl/site.key\" }"
)]
pub(super) struct Certificate {
    pub(super) acme: Option<Spanned<String>>,
    pub(super) chain: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) names: Option<Spanned<Several<Host>>>,
}

/// `[acme.NAME]`
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { terms-of-service-agreed = true }"
)]
pub(super) struct Authority {
    pub(super) directory: Option<Spanned<String>>,
    pub(super) contact: Option<Spanned<Several<String>>>,
    pub(super) terms_of_service_agreed: Option<Spanned<bool>>,
    pub(super) challenge: Option<Spanned<Challenge>>,
    pub(super) ca: Option<Spanned<String>>,
    pub(super) renew_before: Option<Spanned<TimeSpan>>,
}

/// `[upstreams.NAME]`
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { servers = [\"127.0.0.1:8000\"] }"
)]
pub(super) struct Upstream {
    pub(super) servers: Option<Spanned<Several<ServerAddress>>>,
    pub(super) protocol: Option<UpstreamProtocol>,
    pub(super) buffer_requests: Option<Spanned<Size>>,
    pub(super) chunked_requests: Option<Spanned<bool>>,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) connect_timeout: Option<Spanned<TimeSpan>>,
    pub(super) response_timeout: Option<Spanned<TimeSpan>>,
    pub(super) fail_after: Option<Spanned<i64>>,
    pub(super) rest: Option<Spanned<TimeSpan>>,
    pub(super) health: Option<Spanned<Health>>,
}

/// Idle connections to an upstream.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { connections = 32, idle = \"1500ms\" }")]
pub(super) struct KeepAlive {
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) idle: Option<Spanned<TimeSpan>>,
}

/// Questions asked of each server of an upstream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { path = \"/healthz\" }")]
pub(super) struct Health {
    pub(super) path: Option<Spanned<String>>,
    pub(super) host: Option<Host>,
    pub(super) every: Option<Spanned<TimeSpan>>,
    pub(super) timeout: Option<Spanned<TimeSpan>>,
}

/// `[routes.NAME]`
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { listeners = [\"https\"], to = \"app\" }"
)]
pub(super) struct Route {
    pub(super) listeners: Option<Spanned<Several<String>>>,
    pub(super) hosts: Option<Spanned<Several<Host>>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<String>>,
    pub(super) websocket: Option<Spanned<bool>>,
    pub(super) redirect: Option<Spanned<Redirect>>,
    pub(super) respond: Option<Spanned<Respond>>,
    pub(super) limit: Option<Spanned<RequestLimit>>,
    pub(super) max_body: Option<Spanned<Size>>,
    pub(super) headers: Option<Headers>,
}

/// Sending clients elsewhere.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { status = 301, to = \"https://example.org{uri}\" }"
)]
pub(super) struct Redirect {
    pub(super) status: Option<Spanned<i64>>,
    pub(super) to: Option<Spanned<String>>,
}

/// The same answer to everything.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { status = 503, body = \"…\" }"
)]
pub(super) struct Respond {
    pub(super) status: Option<Spanned<i64>>,
    pub(super) content_type: Option<Spanned<String>>,
    pub(super) body: Option<Spanned<String>>,
    pub(super) file: Option<Spanned<String>>,
}

/// A limit on requests.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { requests = \"10/s\", burst = 20 }"
)]
pub(super) struct RequestLimit {
    pub(super) requests: Option<Spanned<CountRate>>,
    pub(super) burst: Option<Spanned<i64>>,
    pub(super) status: Option<Spanned<i64>>,
    pub(super) v6_prefix: Option<Spanned<i64>>,
    pub(super) exceed: Option<Spanned<Ban>>,
}
