//! The browser's client: `/pushwheel.js` and its types.
//!
//! The file in `assets/` is the source and, without the lines that are nothing
//! but a comment, what is served. There is no build step that could differ from
//! what is read.

use std::sync::OnceLock;

use miniz_oxide::deflate::compress_to_vec;

use pushwheel::{EngineBuilder, HeaderError, Request, Response};

/// Long enough that a visitor's next page asks for nothing; short enough that a
/// server's update is everywhere within the hour.
const CACHE: &str = "public, max-age=3600";

/// The routes, which need no key: there is no secret in them.
pub(super) fn routes(engine: EngineBuilder) -> EngineBuilder {
    engine
        .get("/pushwheel.js", |request| answer(request, script()))
        .get("/pushwheel.d.ts", |request| answer(request, types()))
}

/// A file in the forms in which it is served.
struct Asset {
    content_type: &'static str,
    text: String,
    gzipped: Vec<u8>,
    /// The quoted checksum of the text.
    etag: String,
}

impl Asset {
    fn new(content_type: &'static str, text: String) -> Asset {
        Asset {
            content_type,
            gzipped: gzip(text.as_bytes()),
            etag: format!("\"{:08x}\"", crc32fast::hash(text.as_bytes())),
            text,
        }
    }
}

fn script() -> &'static Asset {
    static SCRIPT: OnceLock<Asset> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let text = without_comments(include_str!("assets/pushwheel.js"));
        Asset::new("text/javascript; charset=utf-8", text)
    })
}

/// A browser has no use for the types, and editors show their comments.
fn types() -> &'static Asset {
    static TYPES: OnceLock<Asset> = OnceLock::new();
    TYPES.get_or_init(|| {
        let text = include_str!("assets/pushwheel.d.ts").to_owned();
        Asset::new("application/typescript; charset=utf-8", text)
    })
}

fn answer(request: &Request, asset: &'static Asset) -> Response {
    respond(request, asset).expect("these can be headers")
}

fn respond(request: &Request, asset: &'static Asset) -> Result<Response, HeaderError> {
    let known = request.header("if-none-match").unwrap_or_default();
    // Proxies that compress mark a tag as weak; the text is the same.
    let is_known = |tag: &str| tag.trim().trim_start_matches("W/") == asset.etag;
    let response = if known.split(',').any(is_known) {
        Response::status(304)
    } else if request.accepts_encoding("gzip") {
        Response::typed(asset.content_type, asset.gzipped.as_slice())
            .with_header("Content-Encoding", "gzip")?
    } else {
        Response::typed(asset.content_type, asset.text.as_bytes())
    };
    response
        .with_header("Cache-Control", CACHE)?
        .with_header("ETag", format!("W/{}", asset.etag))?
        .with_header("Vary", "Accept-Encoding")
}

/// Takes out the lines that are nothing but a comment, `// ...` or
/// `/** ... */`.
fn without_comments(script: &str) -> String {
    let lines = script.split_inclusive('\n');
    lines.filter(|line| !is_comment(line.trim())).collect()
}

fn is_comment(line: &str) -> bool {
    line.starts_with("//") || (line.starts_with("/**") && line.ends_with("*/"))
}

/// RFC 1952: a head without a name and a time, the deflated bytes, their
/// checksum and length.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    let mut gzipped = HEAD.to_vec();
    gzipped.extend(compress_to_vec(bytes, 9));
    gzipped.extend(crc32fast::hash(bytes).to_le_bytes());
    let length = u32::try_from(bytes.len()).expect("an asset is small");
    gzipped.extend(length.to_le_bytes());
    gzipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_comment_are_taken_out() {
        let script = "// head\nlet a = 1; // kept\n\n  // why\n  /** @type {x} */\n  a / 2;\n//";
        assert_eq!(without_comments(script), "let a = 1; // kept\n\n  a / 2;\n");
    }

    /// The rule reads lines, not the language: in a template or a comment of
    /// several lines it could take out what is none.
    #[test]
    fn the_script_has_nothing_in_which_the_rule_errs() {
        let script = include_str!("assets/pushwheel.js");
        let served = without_comments(script);
        assert!(!served.contains('`'));
        assert!(!served.contains("/*"));
        assert!(script.contains("\n    // "), "there are comments");
        let is_whole = |line: &str| line.matches("/*").count() == line.matches("*/").count();
        assert!(script.lines().all(is_whole));
    }
}
