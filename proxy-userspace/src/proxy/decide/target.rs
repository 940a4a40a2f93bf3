//! The path that routes are found by, and the target that is passed on. Called by [`super::request()`].
//!
//! Routes match the path as most servers understand it: percent-decoded once, runs of slashes merged, dot segments resolved. So
//! `/a/../admin`, `/a/%2e%2e/admin`, `/a/..%2fadmin` and `//admin` are all `/admin`. The upstream gets the target as it was sent.

use std::borrow::Cow;

use http::{Uri, Version};
use percent_encoding::percent_decode_str;

use super::Reason;

/// Its length as sent, bytes.
pub(super) fn length(uri: &Uri, version: Version) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    match (uri.scheme_str(), uri.authority()) {
        // HTTP/2 sends scheme and authority for themselves.
        _ if version == Version::HTTP_2 => path,
        (Some(scheme), Some(authority)) => scheme.len() + 3 + authority.as_str().len() + path,
        (_, Some(authority)) => authority.as_str().len() + path,
        _ => path,
    }
}

/// The target in origin form (RFC 9112 3.2.1), as sent.
///
/// # Errors
/// [`Reason::BadTarget`]: `*`, an authority alone, a scheme other than HTTP's, bytes outside of printing ASCII.
pub(super) fn origin_form(uri: &Uri) -> Result<Cow<'_, str>, Reason> {
    let known_scheme = match uri.scheme_str() {
        None => uri.authority().is_none(),
        Some(scheme) => scheme == "http" || scheme == "https",
    };
    let path = uri.path_and_query().ok_or(Reason::BadTarget)?.as_str();
    if !known_scheme || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reason::BadTarget);
    }
    match path.as_bytes().first() {
        Some(b'/') => Ok(Cow::Borrowed(path)),
        // `http://host?query`.
        Some(b'?') => Ok(Cow::Owned(format!("/{path}"))),
        _ => Err(Reason::BadTarget),
    }
}

/// The path that routes are found by. Always begins with `/`.
///
/// # Errors
/// [`Reason::BadTarget`]: a broken escape, an escaped NUL, more `..` than segments before them.
pub fn for_matching(path: &str) -> Result<Cow<'_, [u8]>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::BadTarget);
    }
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Ok(Cow::Borrowed(path.as_bytes()));
    }
    let whole =
        |escape: &str| escape.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !path.split('%').skip(1).all(whole) {
        return Err(Reason::BadTarget);
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.contains(&0) {
        return Err(Reason::BadTarget);
    }
    let mut normal = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b"" => {}
            b".." => {
                let start = normal.iter().rposition(|byte| *byte == b'/').ok_or(Reason::BadTarget)?;
                normal.truncate(start);
            }
            segment => {
                normal.push(b'/');
                normal.extend_from_slice(segment);
                continue;
            }
        }
        // `/a/`, `/a/.` and `/a/b/..` all name the directory.
        if last {
            normal.push(b'/');
        }
    }
    Ok(Cow::Owned(normal))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_matched_as_servers_understand_them() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//", "/"),
            ("//admin", "/admin"),
            ("/a//b///c", "/a/b/c"),
            ("/a/../admin", "/admin"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/a/%2E./admin", "/admin"),
            ("/a/..%2fadmin", "/admin"),
            ("/a%2Fb", "/a/b"),
            ("/%61dmin", "/admin"),
            // Decoded once, not twice.
            ("/a/%252e%252e/admin", "/a/%2e%2e/admin"),
            ("/a/...", "/a/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a\\..\\b", "/a\\..\\b"),
            ("/a%20b", "/a b"),
            ("/a/..//..", "!"),
        ] {
            let expected =
                if normal == "!" { Err(Reason::BadTarget) } else { Ok(Cow::Borrowed(normal.as_bytes())) };
            assert_eq!(for_matching(path), expected, "{path}");
        }
        assert_eq!(for_matching("/%e4").as_deref(), Ok(&b"/\xe4"[..]));
    }

    #[test]
    fn paths_without_one_meaning_are_refused() {
        for path in [
            "/..",
            "/../a",
            "/a/../..",
            "/%2e%2e/",
            "/a/..%2f..",
            "/%",
            "/%4",
            "/%zz",
            "/a%",
            "/%+1",
            "/a%00b",
            "*",
            "",
            "a",
        ] {
            assert_eq!(for_matching(path), Err(Reason::BadTarget), "{path}");
        }
    }

    #[test]
    fn targets_take_origin_form() {
        for (uri, expected) in [
            ("/", Ok("/")),
            ("/a?b=c", Ok("/a?b=c")),
            ("http://a", Ok("/")),
            ("https://a/b/../c?d", Ok("/b/../c?d")),
            ("http://a?b", Ok("/?b")),
            ("ftp://a/b", Err(())),
            ("*", Err(())),
            ("a:80", Err(())),
            ("/caf\u{e9}", Err(())),
            ("/?\u{e9}", Err(())),
        ] {
            let parsed: Uri = uri.parse().expect("a URI");
            assert_eq!(origin_form(&parsed).as_deref().map_err(|_| ()), expected, "{uri}");
        }
    }

    #[test]
    fn lengths_are_those_on_the_wire() {
        for (uri, version, expected) in [
            ("/abc?d", Version::HTTP_11, 6),
            ("http://a/abc", Version::HTTP_11, 12),
            ("https://a/abc", Version::HTTP_2, 4),
        ] {
            assert_eq!(length(&uri.parse().expect("a URI"), version), expected, "{uri}");
        }
    }

    proptest! {
        /// What is matched has neither dot segments nor empty ones left, and is its own normal form once it is escaped again.
        #[test]
        fn what_is_matched_is_normal(path in "/([a-b./%]|%2[eEfF]|%5c|%61){0,24}") {
            if let Ok(normal) = for_matching(&path) {
                prop_assert!(normal.starts_with(b"/") && !normal.windows(2).any(|two| two == b"//"), "{:?}", normal);
                let mut segments = normal.split(|byte| *byte == b'/');
                prop_assert!(!segments.any(|segment| segment == b"." || segment == b".."), "{:?}", normal);
                let escaped = percent_encode(&normal, NON_ALPHANUMERIC).to_string().replace("%2F", "/");
                prop_assert_eq!(for_matching(&escaped), Ok(normal));
            }
        }
    }
}
