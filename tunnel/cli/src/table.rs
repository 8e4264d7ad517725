//! Plain tables for people to read and `awk` to cut.

/// Formats rows under their headers. Columns are padded to their widest cell
/// and two spaces apart.
pub(crate) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .chain([width(header)])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (cell, &column) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(
                ' ',
                column - width(cell).min(column) + 2,
            ));
        }
        text.push('\n');
    };
    line(&mut headers.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A box of lines under a title, as `show` and `create` print them. Columns
/// are aligned over all rows; a row of one cell spans the whole box.
pub(crate) fn framed(title: &str, headers: &[&str], groups: &[Vec<Vec<String>>]) -> String {
    let rows = || groups.iter().flatten().filter(|row| row.len() > 1);
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            rows()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .chain([width(header)])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let columns = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    let spans = groups.iter().flatten().filter(|row| row.len() == 1);
    let inner = spans
        .filter_map(|row| row.first())
        .map(|cell| width(cell))
        .chain([width(title), columns])
        .max()
        .unwrap_or(0);
    let rule = |left: char, right: char| format!("{left}{}{right}\n", "─".repeat(inner + 2));
    let boxed = |text: &str| format!("│ {text}{} │\n", " ".repeat(inner - width(text).min(inner)));
    let join = |cells: &[&str]| {
        let mut text = String::new();
        for (column, (cell, &wide)) in cells.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if column + 1 < cells.len() {
                text.extend(std::iter::repeat_n(' ', wide - width(cell).min(wide) + 2));
            }
        }
        text
    };
    let mut text = rule('┌', '┐');
    text.push_str(&boxed(title));
    text.push_str(&rule('├', '┤'));
    text.push_str(&boxed(&join(headers)));
    for group in groups {
        text.push_str(&rule('├', '┤'));
        for row in group {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            match cells[..] {
                [single] => text.push_str(&boxed(single)),
                _ => text.push_str(&boxed(&join(&cells))),
            }
        }
    }
    if groups.is_empty() {
        text.push_str(&rule('├', '┤'));
    }
    text.push_str(&rule('└', '┘'));
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(
            &["WORKSPACE", "STATUS"],
            &[
                vec!["admin/dev".into(), "Started".into()],
                vec!["admin/a-long-one".into(), "Stopped".into()],
            ],
        );
        assert_eq!(
            text,
            "WORKSPACE         STATUS   \nadmin/dev         Started  \nadmin/a-long-one  Stopped  \n"
        );
    }

    #[test]
    fn boxes_close() {
        let text = framed(
            "Workspace Preview",
            &["RESOURCE", "ACCESS"],
            &[vec![
                vec!["local_process.main".into()],
                vec!["└─ main (linux, amd64)".into(), "adit ssh dev".into()],
            ]],
        );
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(
            text.contains("│ └─ main (linux, amd64)  adit ssh dev │"),
            "{text}"
        );
    }
}
