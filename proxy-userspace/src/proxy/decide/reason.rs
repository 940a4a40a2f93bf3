//! Why the proxy itself answered a request: stable names for logs and metrics. Used throughout [`super`] and by the network side.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:expr, $says:literal;)*) => {
        /// Why the proxy itself answered, or why a connection ended. Names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $says] $variant,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The status that goes with it. A route's own action and limit say otherwise; `None` for those that have no status of
            /// their own.
            pub fn status(self) -> Option<StatusCode> {
                const NONE: u16 = 0;
                StatusCode::from_u16(match self { $(Self::$variant => $status,)* }).ok()
            }

            /// A sentence for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $says,)* }
            }
        }
    };
}

reasons! {
    Redirected = "redirected", NONE, "the route redirects";
    Responded = "responded", NONE, "the route has a fixed answer";
    RateLimited = "rate-limited", NONE, "the source sends more requests than the route allows";
    NoRoute = "no-route", 404, "no route of this listener has this host and path";
    BadHost = "bad-host", 400, "the Host header or authority is missing, repeated, malformed or contradicts itself";
    BadTarget = "bad-target", 400, "the request target is malformed or leaves the root";
    TargetTooLong = "target-too-long", 414, "the request target is longer than allowed";
    HeaderTooLarge = "header-too-large", 431, "the header has more bytes or lines than allowed";
    BadHeader = "bad-header", 400, "a header does not belong in this version of HTTP, or is malformed";
    BadRequest = "bad-request", 400, "the request could not be parsed";
    MethodRefused = "method-refused", 405, "CONNECT, TRACE and TRACK are not served";
    TeInvalid = "te-invalid", 501, "Transfer-Encoding is anything but one chunked in HTTP/1.1";
    LengthInvalid = "length-invalid", 400, "Content-Length is malformed, contradicts itself, or comes with Transfer-Encoding";
    LengthRequired = "length-required", 411, "the upstream takes no body without a length, and this one is too long to be given one here";
    BodyTooLarge = "body-too-large", 413, "the body is longer than the route allows";
    BodyInvalid = "body-invalid", 400, "the framing of the body is broken";
    ExpectRefused = "expect-refused", 417, "Expect is anything but 100-continue";
    VersionRefused = "version-refused", 505, "the version of HTTP is not spoken here";
    ClientTimeout = "client-timeout", 408, "the client took too long over its request";
    ClientGone = "client-gone", 400, "the client went away before the answer was complete";
    HandshakeFailed = "handshake-failed", NONE, "the TLS handshake came to nothing: the client left, speaks no version or cipher that is spoken here, dislikes the certificate, or speaks plain HTTP";
    TlsInvalid = "tls-invalid", NONE, "what came in place of a TLS handshake was none, or broke the protocol";
    Http2Invalid = "http2-invalid", NONE, "the client broke or flooded HTTP/2";
    TooManyConnections = "too-many-connections", 503, "the proxy, or this source, has as many connections as allowed";
    TooManyRequests = "too-many-requests", 429, "this source has as many requests in flight as allowed";
    UpstreamDown = "upstream-down", 502, "no server of the upstream could be reached";
    UpstreamTimeout = "upstream-timeout", 504, "the upstream took too long";
    UpstreamInvalid = "upstream-invalid", 502, "the upstream's answer is not one that can be passed on";
    UpstreamBroke = "upstream-broke", 502, "the upstream closed the connection before its answer was complete";
    Draining = "draining", 503, "the proxy is about to end";
}

impl Reason {
    /// Whether it counts towards [`crate::proxy::plan::Common::abuse`]: what no well-behaved client does. Nothing that a page can have a
    /// browser send does: targets and cookies are not of its visitors' making.
    pub fn is_abuse(self) -> bool {
        matches!(
            self,
            Self::BadHost
                | Self::BadHeader
                | Self::BadRequest
                | Self::MethodRefused
                | Self::TeInvalid
                | Self::LengthInvalid
                | Self::BodyInvalid
                | Self::VersionRefused
                | Self::TlsInvalid
                | Self::Http2Invalid
        )
    }

    /// Whether the connection ends after the answer: when what follows on it can't be told, or should not be read. After CONNECT it
    /// may be what was meant for the tunnel, which was sent without waiting for the answer.
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Self::Redirected
                | Self::Responded
                | Self::RateLimited
                | Self::TooManyRequests
                | Self::NoRoute
                | Self::UpstreamDown
                | Self::UpstreamTimeout
                | Self::UpstreamInvalid
                | Self::UpstreamBroke
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_metrics() {
        let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(names.iter().all(|name| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        }));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn statuses_refuse_or_are_none() {
        for reason in Reason::ALL {
            let refuses = reason.status().is_none_or(|status| status.as_u16() >= 400);
            assert!(refuses && !reason.sentence().is_empty(), "{reason}");
        }
    }

    #[test]
    fn connections_end_where_what_follows_can_not_be_told() {
        use Reason as R;
        for reason in [
            R::TeInvalid,
            R::LengthInvalid,
            R::BodyTooLarge,
            R::BodyInvalid,
            R::BadRequest,
            R::ClientTimeout,
            R::MethodRefused,
        ] {
            assert!(reason.closes(), "{reason}");
        }
        for reason in [R::RateLimited, R::TooManyRequests, R::NoRoute, R::UpstreamDown, R::Responded] {
            assert!(!reason.closes(), "{reason}");
        }
    }
}
