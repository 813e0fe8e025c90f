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
    if rest.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(BadPath::BadComponent);
    }
    if !rest.chars().all(is_allowed) {
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
