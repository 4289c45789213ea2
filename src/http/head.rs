//! The head of a request: its method, its target, its headers.
//!
//! A head is one buffer of the bytes as they were sent, and ranges into it. `parse` makes
//! it and rejects what RFC 9112 forbids, so the getters only look things up.

use std::fmt;
use std::ops::Range;

/// The method of a request (RFC 9110 section 9). Methods are case-sensitive: `get` is
/// another method than `GET`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: as `GET`, but the response has no body.
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Any other token, as it was sent. Never `CONNECT`, which is rejected.
    Other(Box<str>),
}

impl Method {
    /// Returns the method with this name on the wire.
    pub(crate) fn from_name(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            other => Method::Other(other.into()),
        }
    }

    /// Returns the name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other(name) => name,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A client's version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// `HTTP/1.0`: connections close by default, and nothing is chunked.
    Http10,
    /// `HTTP/1.1`: connections stay open by default.
    Http11,
}

/// Whether the connection stays open after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It is closed: `Connection: close`.
    Close,
    /// It stays open for the next request of a client with this version. HTTP/1.0 needs
    /// `Connection: keep-alive`; in HTTP/1.1 it is the default.
    KeepAlive(Version),
}

/// The framing of a request's body (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, or `Content-Length: 0`.
    None,
    /// `Content-Length`: this many bytes, at least one.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The head of a request, checked and owned.
///
/// It takes two allocations for any number of headers (and a third for a method that
/// HTTP itself does not define); its getters take none. Finding a header visits all
/// headers: there are few.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// The head as it was sent, from the method to the empty line.
    pub(super) bytes: Vec<u8>,
    pub(super) fields: Vec<Field>,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: Range<usize>,
    pub(super) path: Range<usize>,
    pub(super) query: Option<Range<usize>>,
    pub(super) host: Option<Range<usize>>,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    pub(super) keep_alive: bool,
}

/// The ranges of one header in the head's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

impl Head {
    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the client's version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the target as it was sent: `/path?query`, `http://host/path?query` or `*`.
    /// ASCII without spaces and control characters.
    pub fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// Returns the target's path as it was sent, percent-encoded and without the query. It
    /// begins with `/`, or is `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        // RFC 9112 section 3.2.1: the empty path of `http://host` is `/`.
        if self.path.is_empty() {
            return "/";
        }
        self.text(&self.path)
    }

    /// Returns the part of the target after its first `?`, percent-encoded; `None` if it
    /// has no `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|range| self.text(range))
    }

    /// Returns the requested host and its port, if any: from the target if that names one
    /// (RFC 9112 section 3.2.2), otherwise from the header `Host`. `None` only in HTTP/1.0.
    /// May be empty, as a `Host` header may.
    pub fn host(&self) -> Option<&str> {
        self.host.as_ref().map(|range| self.text(range))
    }

    /// Returns the value of the first header of that name, in any case, without
    /// the spaces around it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.header_values(name).next()
    }

    /// Returns the values of all headers of that name, as
    /// [`header`](Head::header) does.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let has_name =
            |field: &&Field| self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes());
        let fields = self.fields.iter().filter(has_name);
        fields.map(|field| &self.bytes[field.value.clone()])
    }

    /// Returns the same as [`header`](Head::header), but `None` if it is not UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// Returns all headers, in the order and the case in which they were sent.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
        self.fields
            .iter()
            .map(|field| (self.text(&field.name), &self.bytes[field.value.clone()]))
    }

    /// Returns whether the client keeps the connection open: in HTTP/1.1 unless it sends
    /// `Connection: close`, in HTTP/1.0 only if it sends `Connection: keep-alive`.
    #[cfg(any(test, feature = "internals"))]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns the persistence of a response that is not the connection's last one.
    pub fn persistence(&self) -> Persistence {
        if self.keep_alive {
            Persistence::KeepAlive(self.version)
        } else {
            Persistence::Close
        }
    }

    /// Returns the framing of the body.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns whether the client sent `Expect: 100-continue`. Never in HTTP/1.0, where it
    /// is ignored (RFC 9110 section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    fn text(&self, range: &Range<usize>) -> &str {
        str::from_utf8(&self.bytes[range.clone()]).expect("targets, hosts and names are ASCII")
    }
}

/// Shows the names of the headers, but no values and no query: these can be secrets.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("headers", &HeaderNames(self))
            .finish_non_exhaustive()
    }
}

struct HeaderNames<'a>(&'a Head);

impl fmt::Debug for HeaderNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.headers().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}
