//! The result of a check, and the report.

use std::io::{self, Write};

use serde::Serialize;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Ok,
    /// It works, but not for every client, or not for long.
    Warning,
    Failure,
    NotChecked,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The name of the check, for programs: stable, in snake case.
    pub(super) code: &'static str,
    pub(super) outcome: Outcome,
    /// The observation, or why there is none.
    pub(super) seen: String,
    /// The fix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(code: &'static str, seen: impl Into<String>) -> Finding {
        Finding {
            code,
            outcome: Outcome::Ok,
            seen: seen.into(),
            advice: None,
        }
    }

    pub(super) fn warning(
        code: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            outcome: Outcome::Warning,
            advice: Some(advice.into()),
            ..Finding::ok(code, seen)
        }
    }

    pub(super) fn failure(
        code: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            outcome: Outcome::Failure,
            ..Finding::warning(code, seen, advice)
        }
    }

    pub(super) fn not_checked(code: &'static str, why: impl Into<String>) -> Finding {
        Finding {
            outcome: Outcome::NotChecked,
            ..Finding::ok(code, why)
        }
    }
}

/// All findings. Text is printed with each finding, JSON at the end.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
    is_json: bool,
}

/// The report as JSON.
#[derive(Serialize)]
struct Body<'a> {
    url: &'a str,
    ok: usize,
    warnings: usize,
    failures: usize,
    not_checked: usize,
    findings: &'a [Finding],
}

impl Report {
    pub(super) fn new(is_json: bool) -> Report {
        Report {
            findings: Vec::new(),
            is_json,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if !self.is_json {
            // Standard output may be closed. The exit status is enough then.
            let _ = write_text(&mut io::stdout().lock(), &finding);
        }
        self.findings.push(finding);
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    pub(super) fn count(&self, outcome: Outcome) -> usize {
        let findings = self.findings.iter();
        findings.filter(|f| f.outcome == outcome).count()
    }

    /// Prints the rest of the report.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn close(&self, url: &str) -> io::Result<()> {
        let [ok, warnings, failures, not_checked] = [
            Outcome::Ok,
            Outcome::Warning,
            Outcome::Failure,
            Outcome::NotChecked,
        ]
        .map(|outcome| self.count(outcome));
        let mut out = io::stdout().lock();
        if self.is_json {
            let findings = &*self.findings;
            let body = Body {
                url,
                ok,
                warnings,
                failures,
                not_checked,
                findings,
            };
            serde_json::to_writer_pretty(&mut out, &body)?;
            writeln!(out)?;
        } else {
            writeln!(
                out,
                "\nok: {ok}, warnings: {warnings}, failures: {failures}, not checked: {not_checked}"
            )?;
        }
        out.flush()
    }
}

fn write_text(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let word = match finding.outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "WARNING",
        Outcome::Failure => "FAILURE",
        Outcome::NotChecked => "-",
    };
    let why = match finding.outcome {
        Outcome::NotChecked => "not checked: ",
        _ => "",
    };
    let seen = printable(&finding.seen);
    writeln!(out, "{word:<8} {:<20} {why}{seen}", finding.code)?;
    if let Some(advice) = &finding.advice {
        writeln!(out, "{:<29} => {}", "", printable(advice))?;
    }
    out.flush()
}

/// Escapes control characters: a response must not move the cursor or end the line.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_advice_another() {
        let mut out = Vec::new();
        write_text(&mut out, &Finding::ok("status", "200")).unwrap();
        write_text(&mut out, &Finding::failure("idle", "it ended", "do x")).unwrap();
        write_text(&mut out, &Finding::not_checked("cors", "no origin")).unwrap();
        let lines: Vec<_> = str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(
            lines,
            [
                "ok       status               200",
                "FAILURE  idle                 it ended",
                "                              => do x",
                "-        cors                 not checked: no origin",
            ]
        );
    }

    #[test]
    fn text_of_a_server_stays_in_its_line() {
        assert_eq!(printable("ä\u{1b}[2J\r\n\"x\""), "ä\\u{1b}[2J\\r\\n\"x\"");
    }
}
