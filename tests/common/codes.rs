//! Finds the error codes in the source of a package.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;

/// Returns the codes that a file answers errors with, as far as they stand where
/// an error is made, or in a `fn code`.
fn codes_in(source: &str) -> Vec<String> {
    let tests = source.find("#[cfg(test)]").unwrap_or(source.len());
    let code_only = source[..tests].lines().map(|line| match line.trim() {
        comment if comment.starts_with("//") => "",
        line => line,
    });
    let text: String = code_only.collect();
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let literal = |at: &str| Some(at.strip_prefix('"')?.split('"').next()?.to_owned());
    let after_status = |at: &str| literal(at.get(3..)?.strip_prefix(',')?);
    let mut codes = Vec::new();
    for (maker, _) in text.match_indices("::error(") {
        codes.extend(after_status(&text[maker + "::error(".len()..]));
    }
    for maker in ["Problem::new(", "Refusal::new("] {
        let made = text.match_indices(maker);
        codes.extend(made.filter_map(|(at, _)| after_status(&text[at + maker.len()..])));
    }
    for (start, end) in [
        ("code:\"", ","),
        ("letcode=match", "};"),
        ("fncode(&self)->&'staticstr{", "}}"),
    ] {
        for (at, _) in text.match_indices(start) {
            let body = text[at..].split(end).next().unwrap_or_default();
            let strings = body.split('"').skip(1).step_by(2);
            codes.extend(strings.map(str::to_owned));
        }
    }
    codes
}

/// Finds the codes in every Rust file of a folder, each with its file.
pub(crate) fn visit(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let name = path.display().to_string();
            found.extend(codes_in(&source).into_iter().map(|c| (name.clone(), c)));
        }
    }
}
