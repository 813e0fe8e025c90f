//! Keys and their paths: key index → znode below the data root, by shape; and the random choice of keys.

use crate::spec::Data;

/// The paths of a run's data. Fixed-width names, so that all paths of one key space have the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    root: String,
    keys: u64,
}

impl KeySpace {
    /// The key space of a workload's data.
    pub fn new(data: &Data) -> KeySpace {
        KeySpace { root: data.root.clone(), keys: data.znodes }
    }

    /// How many keys there are; valid keys are below.
    pub fn len(&self) -> u64 {
        self.keys
    }

    /// Never: there is at least one key.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The data root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Appends the key's path to `out`.
    pub fn push_path(&self, key: u64, out: &mut String) {
        let _ = (key, out);
        unimplemented!()
    }

    /// Appends the path of the znode that holds the key (what `children` lists).
    pub fn push_parent(&self, key: u64, out: &mut String) {
        let _ = (key, out);
        unimplemented!()
    }

    /// Inner znodes between root and keys, parents first; the root itself is not among them. Empty for a flat shape.
    pub fn inner_paths(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::empty()
    }
}
