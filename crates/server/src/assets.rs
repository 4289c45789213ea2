//! The browser's client: `/pushwheel.js` and its types.
//!
//! The file in `assets/` is served without the lines that contain only a comment. There is
//! no build step, so the served file is the reviewed one.

use std::sync::OnceLock;

use miniz_oxide::deflate::compress_to_vec;

use pushwheel::{EngineBuilder, HeaderError, Request, Response};

/// Long enough for the next pages of a visitor, short enough that an update of the server
/// reaches all browsers within an hour.
const CACHE: &str = "public, max-age=3600";

/// Adds the routes. They need no key, because the files contain no secret.
pub(super) fn routes(engine: EngineBuilder) -> EngineBuilder {
    engine
        .get("/pushwheel.js", |request| answer(request, script()))
        .get("/pushwheel.d.ts", |request| answer(request, types()))
}

/// A file, as it is served.
struct Asset {
    content_type: &'static str,
    text: String,
    gzipped: Vec<u8>,
    /// The checksum of the text, in quotes.
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

/// The types keep their comments, because editors show them and browsers do not load them.
fn types() -> &'static Asset {
    static TYPES: OnceLock<Asset> = OnceLock::new();
    TYPES.get_or_init(|| {
        let text = include_str!("assets/pushwheel.d.ts").to_owned();
        Asset::new("application/typescript; charset=utf-8", text)
    })
}

fn answer(request: &Request, asset: &'static Asset) -> Response {
    respond(request, asset).expect("the values are valid in headers")
}

fn respond(request: &Request, asset: &'static Asset) -> Result<Response, HeaderError> {
    let known = request.header("if-none-match").unwrap_or_default();
    // A proxy that compresses marks the tag as weak. The text is the same.
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

/// Removes the lines that contain only a comment, `// ...` or `/** ... */`.
fn without_comments(script: &str) -> String {
    let lines = script.split_inclusive('\n');
    lines.filter(|line| !is_comment(line.trim())).collect()
}

fn is_comment(line: &str) -> bool {
    line.starts_with("//") || (line.starts_with("/**") && line.ends_with("*/"))
}

/// Compresses as RFC 1952 describes: a head without name and time, the deflated bytes,
/// their checksum and length.
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

    /// `without_comments` knows lines, not the language: in a template or a comment of
    /// several lines it could remove other text.
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
