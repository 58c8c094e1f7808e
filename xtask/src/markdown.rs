//! The little of Markdown that the checks read.

/// A line number, counted from 1, with what stands there.
pub(crate) type Numbered<T> = (usize, T);

/// The text of the first fenced block with this info string.
pub(crate) fn fenced_block(text: &str, info: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim().strip_prefix("```") != Some(info));
    lines.next()?;
    Some(lines.take_while(|line| line.trim() != "```").map(|line| format!("{line}\n")).collect())
}

/// The lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = Numbered<&str>> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// The targets of all links, inline `[text](target)` and by reference `[text]: target`.
pub(crate) fn links(text: &str) -> Vec<Numbered<String>> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            found.push((number, target.trim().to_string()));
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or(rest);
            found.push((number, target.to_string()));
        }
    }
    found
}

/// The line without its code spans.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The anchors of all headings, made as forges make them: lower case, punctuation dropped, spaces to hyphens, and a number
/// behind repeated ones.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut bases: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let base = title.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let repeats = bases.iter().filter(|earlier| **earlier == base).count();
        found.push(if repeats == 0 { base.clone() } else { format!("{base}-{repeats}") });
        bases.push(base);
    }
    found
}

/// The cells of the table between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, row by row, without its two header lines.
pub(crate) fn table(text: &str, name: &str) -> Option<Vec<Numbered<Vec<String>>>> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != begin).skip(1).collect::<Vec<_>>();
    let length = lines.iter().position(|(_, line)| line.trim() == end)?;
    let rows = lines[..length].iter().filter(|(_, line)| line.trim_start().starts_with('|')).skip(2);
    let cells = |line: &str| line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
    Some(rows.map(|&(index, line)| (index + 1, cells(line))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_block_is_found_by_its_whole_info_string() {
        let text = "```sh\nno\n```\n\n```sh test\ncargo xtask test\n```\n";
        assert_eq!(fenced_block(text, "sh test").unwrap(), "cargo xtask test\n");
        assert_eq!(fenced_block(text, "sh tes"), None);
    }

    #[test]
    fn links_are_found_outside_code_only() {
        let text = "[a](x.md) and [`b`](y.md#z \"title\")\n`[c](no.md)`\n```\n[d](no.md)\n```\n[e]: ../f\n";
        let expected = [(1, "x.md"), (1, "y.md#z"), (6, "../f")].map(|(line, target)| (line, target.to_string()));
        assert_eq!(links(text), expected);
    }

    #[test]
    fn anchors_follow_the_forge() {
        let text = "# Step by step: `a_b`!\n## Same\n## Same\n#hashtag\n```\n# comment\n```\n";
        assert_eq!(anchors(text), ["step-by-step-a_b", "same", "same-1"]);
    }

    #[test]
    fn a_table_lies_between_its_markers() {
        let text = "| x |\n<!-- t:begin -->\n\n| a | b |\n| --- | --- |\n| 1 | `2`, 3 |\n<!-- t:end -->\n| y |\n";
        assert_eq!(table(text, "t").unwrap(), [(6, vec!["1".to_string(), "`2`, 3".to_string()])]);
        assert_eq!(table("<!-- t:begin -->\n| a |\n", "t"), None);
        assert_eq!(table("no markers", "t"), None);
    }
}
