//! The reference read models are examples: a file is read at a glance, or it shows what the language still lacks words for.

use std::fs::read_to_string;

/// Lines of a file before its tests.
const LINES_MAX: usize = 79;
/// A line that has to be scrolled counts for two; so it isn't there.
const LINE_CHARS_MAX: usize = 140;

#[test]
fn each_reference_read_model_is_brief() {
    let (mut files, mut long) = (0, Vec::new());
    for entry in std::fs::read_dir("../projections").unwrap() {
        let path = entry.unwrap().path();
        let text = read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().take_while(|line| *line != "tests:").collect();
        assert!(lines.len() < text.lines().count(), "{}: without tests", path.display());
        files += 1;
        if lines.len() > LINES_MAX {
            long.push(format!("{}: {} lines before its tests, at most {LINES_MAX}", path.display(), lines.len()));
        }
        let wide = lines.iter().enumerate().filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX);
        long.extend(wide.map(|(n, _)| format!("{}:{}: more than {LINE_CHARS_MAX} characters", path.display(), n + 1)));
    }
    assert!(files >= 12, "only {files} files");
    assert!(long.is_empty(), "{long:#?}");
}
