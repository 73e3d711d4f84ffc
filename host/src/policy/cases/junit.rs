//! What became of the cases as JUnit XML, which CI servers read: a suite for each file, a test case for each case.
//!
//! It keeps to the elements and attributes that every reader of the format knows, and to characters that XML 1.0 can
//! hold: others become U+FFFD.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::report::{CaseReport, FileReport, Report};

impl Report {
    /// The report as a document of JUnit XML.
    pub fn junit(&self) -> String {
        Document { report: self }.to_string()
    }
}

struct Document<'r> {
    report: &'r Report,
}

impl fmt::Display for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { policy, files } = self.report;
        let (all, failed) = (self.report.cases(), self.report.failed());
        let time: Duration = files.iter().map(took).sum();
        f.write_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
        let name = Escaped(&policy.name);
        writeln!(f, "<testsuites name=\"{name}\" tests=\"{all}\" failures=\"{failed}\" time=\"{}\">", seconds(time))?;
        for file in files {
            suite(f, file, &policy.name)?;
        }
        f.write_str("</testsuites>\n")
    }
}

fn suite(f: &mut fmt::Formatter<'_>, file: &FileReport, policy: &str) -> fmt::Result {
    let path = file.path.display().to_string();
    writeln!(
        f,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"0\" time=\"{}\">",
        Escaped(&path),
        file.cases.len(),
        file.failed(),
        seconds(took(file)),
    )?;
    for case in &file.cases {
        test_case(f, case, &path, policy)?;
    }
    f.write_str("  </testsuite>\n")
}

fn test_case(f: &mut fmt::Formatter<'_>, case: &CaseReport, path: &str, policy: &str) -> fmt::Result {
    let (name, class) = (Escaped(&case.name), Escaped(policy));
    write!(f, "    <testcase name=\"{name}\" classname=\"{class}\" time=\"{}\"", seconds(case.took))?;
    let Some(first) = case.findings.first() else { return f.write_str("/>\n") };
    let summary = first.summary();
    write!(f, ">\n      <failure message=\"{}\" type=\"case\">", Escaped(&summary))?;
    write!(f, "{}:{}", Escaped(path), case.line)?;
    for line in case.details() {
        write!(f, "\n{}", Escaped(&line))?;
    }
    f.write_str("</failure>\n    </testcase>\n")
}

fn took(file: &FileReport) -> Duration {
    file.cases.iter().map(|case| case.took).sum()
}

/// Seconds, as the format counts.
fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

/// Text as XML holds it, between tags and in attributes alike.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // In an attribute they would become spaces.
                '\n' => f.write_str("&#10;")?,
                '\t' => f.write_str("&#9;")?,
                '\r' => f.write_str("&#13;")?,
                '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_or_would_take_for_its_own_is_escaped() {
        let text = "a<b> & \"c\"\n\u{1b}[31m\u{0}é\u{ffff}";
        assert_eq!(Escaped(text).to_string(), "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}[31m\u{fffd}é\u{fffd}");
    }

    #[test]
    fn time_is_in_seconds() {
        assert_eq!(seconds(Duration::from_micros(1_500_020)), "1.500020");
    }
}
