//! Java's `.properties` format: `key=value`, `key: value` or `key value` lines, `#` and `!` comments,
//! backslash escapes, and lines continued by a backslash at their end.
//!
//! Source: the format's description in the Java API (`java.util.Properties.load`). The one difference: a wrong
//! `\uXXXX` is an error with its line, as Java's exception would be, and the text is UTF-8 rather than Latin-1.

/// One entry, where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// First line of the entry, from 1.
    pub line: usize,
    /// The key, unescaped.
    pub key: String,
    /// The value, unescaped; trailing blanks are part of it.
    pub value: String,
}

/// Every entry in file order, duplicates included (in Java the last one wins). The error is a line and a text.
pub fn properties(text: &str) -> Result<Vec<Property>, (usize, String)> {
    let mut found = Vec::new();
    let mut lines = natural_lines(text).peekable();
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_string();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(BLANK)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let unescaped = |text| unescape(text).map_err(|why| (line, why));
        found.push(Property { line, key: unescaped(key)?, value: unescaped(value)? });
    }
    Ok(found)
}

/// What Java counts as blank here.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// Lines as Java ends them: at `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let mut number = 0;
    std::iter::from_fn(move || {
        let text = rest?;
        number += 1;
        match text.find(['\n', '\r']) {
            Some(end) => {
                let ending = if text[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = Some(&text[end + ending..]);
                Some((number, &text[..end]))
            }
            None => {
                rest = None;
                Some((number, text))
            }
        }
    })
}

/// An odd number of backslashes at the end.
fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that no backslash protects; one `=` or `:` may follow the blanks.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let ends = !escaped && (matches!(c, '=' | ':') || BLANK.contains(c));
            escaped = !escaped && *c == '\\';
            ends
        })
        .map_or(line.len(), |(index, _)| index);
    let value = line[end..].trim_start_matches(BLANK);
    let value = value.strip_prefix(['=', ':']).unwrap_or(value);
    (&line[..end], value.trim_start_matches(BLANK))
}

fn unescape(text: &str) -> Result<String, String> {
    if !text.contains('\\') {
        return Ok(text.to_string());
    }
    let mut units = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut buffer = [0; 2];
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let unit = u16::from_str_radix(&digits, 16)
                        .ok()
                        .filter(|_| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                        .ok_or_else(|| format!("\\u{digits} is no escape, expected \\u and four hexadecimal digits; write \\\\ for a backslash"))?;
                    units.push(unit);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => continue,
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    Ok(String::from_utf16_lossy(&units))
}
