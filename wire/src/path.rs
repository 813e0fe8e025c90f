//! Which strings are znode paths. Source: `PathUtils.validatePath`.

/// Longest prefix that names the system's own znodes.
pub const SYSTEM_ROOT: &str = "/zookeeper";

/// Why a string is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Nothing there.
    #[error("path is empty")]
    Empty,
    /// Must start with a slash.
    #[error("path does not start with /")]
    NotAbsolute,
    /// Must not end with one.
    #[error("path ends with /")]
    TrailingSlash,
    /// `//`, `.` or `..` between slashes.
    #[error("path has an empty, . or .. component")]
    BadComponent,
    /// A character that ZooKeeper refuses.
    #[error("path has a character that is not allowed")]
    BadCharacter,
}

/// Whether `path` is a legal znode path.
pub fn validate(path: &str) -> Result<(), BadPath> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(if path.is_empty() { BadPath::Empty } else { BadPath::NotAbsolute });
    };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err(BadPath::TrailingSlash);
    }
    // Every write is checked here, so by bytes (none of a longer character is a slash or a dot), and first by
    // loops without a way out, which are a few vector instructions: a component that is not allowed begins
    // behind a slash with a slash or a dot.
    let bytes = path.as_bytes();
    let pairs = bytes.iter().zip(&bytes[1..]);
    let doubtful = pairs.fold(false, |any, (a, b)| any | (*a == b'/') & ((*b == b'/') | (*b == b'.')));
    let not_allowed = |name: &[u8]| matches!(name, b"" | b"." | b"..");
    if doubtful && rest.as_bytes().split(|byte| *byte == b'/').any(not_allowed) {
        return Err(BadPath::BadComponent);
    }
    let printable = bytes.iter().fold(true, |all, byte| all & (0x20..=0x7e).contains(byte));
    if !printable && !rest.chars().all(is_allowed) {
        return Err(BadPath::BadCharacter);
    }
    Ok(())
}

/// Supplementary characters are refused: their UTF-16 units lie in the refused range D800–F8FF.
fn is_allowed(c: char) -> bool {
    !matches!(c as u32, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// The parent of a path with at least one slash: `/` for `/a`, `/a` for `/a/b`, and `/` for `/` itself.
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// The last component: `b` for `/a/b`, empty for `/`.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path() {
        for legal in ["/", "/a", "/a/b", "/a.b/..c/...", "/ ~", "/é/日本", "/zookeeper/quota", "/\u{f900}"]
        {
            assert_eq!(validate(legal), Ok(()), "{legal}");
        }
        for (bad, why) in [
            ("", BadPath::Empty),
            ("a", BadPath::NotAbsolute),
            ("/a/", BadPath::TrailingSlash),
            ("//", BadPath::TrailingSlash),
            ("//a", BadPath::BadComponent),
            ("/a//b", BadPath::BadComponent),
            ("/.", BadPath::BadComponent),
            ("/a/..", BadPath::BadComponent),
            ("/a/./b", BadPath::BadComponent),
            ("/\u{1}/../b", BadPath::BadComponent),
            ("/a\0", BadPath::BadCharacter),
            ("/a\u{1f}b", BadPath::BadCharacter),
            ("/\u{7f}", BadPath::BadCharacter),
            ("/a/\u{9f}", BadPath::BadCharacter),
            ("/\u{e000}", BadPath::BadCharacter),
            ("/\u{fff0}", BadPath::BadCharacter),
            ("/\u{1f600}", BadPath::BadCharacter),
        ] {
            assert_eq!(validate(bad), Err(why), "{bad:?}");
        }
    }
}
