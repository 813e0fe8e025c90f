//! A znode's path, kept in the znode itself while it is short.
//!
//! Whoever looks a znode up compares its path; where that is in another place, it is one more of the few slow
//! steps (a miss of the cache and of the address translation) that a look-up is made of.

use std::fmt;
use std::ops::Deref;

/// Paths up to this length, in bytes, need no memory of their own.
const SHORT_BYTES_MAX: usize = 46;

/// The path.
#[derive(Debug, Clone)]
pub(super) struct NodePath(Kept);

#[derive(Debug, Clone)]
enum Kept {
    Here { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    There(Box<str>),
}

impl NodePath {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Here { length, bytes } => &bytes[..usize::from(*length)],
            Kept::There(path) => path.as_bytes(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_bytes().len()
    }
}

impl From<&str> for NodePath {
    fn from(path: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match bytes.get_mut(..path.len()) {
            Some(place) => {
                place.copy_from_slice(path.as_bytes());
                Self(Kept::Here { length: path.len() as u8, bytes })
            }
            None => Self(Kept::There(path.into())),
        }
    }
}

/// Checks that it is text, each time: comparing is for [`NodePath::as_bytes`].
impl Deref for NodePath {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Kept::Here { .. } => std::str::from_utf8(self.as_bytes()).expect("made of a str"),
            Kept::There(path) => path,
        }
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_kept_whole() {
        for length in 0..=2 * SHORT_BYTES_MAX {
            let path = "é/".repeat(length);
            let path = &path[..path.floor_char_boundary(length)];
            let kept = NodePath::from(path);
            assert_eq!((&*kept, kept.len(), kept.as_bytes()), (path, path.len(), path.as_bytes()));
        }
        assert_eq!(std::mem::size_of::<NodePath>(), SHORT_BYTES_MAX + 2);
    }
}
