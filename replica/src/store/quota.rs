//! Quotas: how many znodes and bytes a subtree may hold. Source: `Quotas.java`, `StatsTrack.java`,
//! `PathTrie.java`, `ZooKeeperServer.checkQuota`; reference §3.10.
//!
//! Limits and usage are ordinary znodes below /zookeeper/quota, written by clients; the store reacts to their
//! paths. Usage is rewritten by each member for itself, without a transaction and without a change of the
//! znode's Stat, and so is part of no digest. Only the longest prefix with limits counts; the root has none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zoometry_wire::{ErrorCode, path};

use super::Store;

/// Where limits and usage are kept, the limited path appended.
const QUOTA_ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "/zookeeper_limits";
const USAGE: &str = "/zookeeper_stats";

const COUNT: &str = "count";
const BYTES: &str = "bytes";
const COUNT_HARD: &str = "countHardLimit";
const BYTES_HARD: &str = "byteHardLimit";

/// Bytes of a limits or usage znode that are read. Apache's are a tenth as long, but clients may write anything.
const TRACK_BYTES_MAX: usize = 1024;

/// The content of a limits or usage znode: `count=5,bytes=100=;byteHardLimit=200`, −1 for what is not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Track(BTreeMap<String, i64>);

impl Track {
    /// Reads what can be read; anything else counts as not set. Of a long text only the beginning
    /// ([`TRACK_BYTES_MAX`]): it is read again with every change below the limited path.
    pub fn parse(data: &[u8]) -> Self {
        let data = &data[..data.len().min(TRACK_BYTES_MAX)];
        let text = String::from_utf8_lossy(data);
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let mut parts = pair.split('=');
            let (key, value) = (parts.next()?, parts.next()?);
            Some((key.to_string(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }

    fn usage(count: i64, bytes: i64) -> Self {
        Self(BTreeMap::from([(COUNT.to_string(), count), (BYTES.to_string(), bytes)]))
    }

    fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    fn add(&mut self, key: &str, delta: i64) {
        let sum = self.get(key).saturating_add(delta);
        self.0.insert(key.to_string(), sum);
    }

    /// The text, count and bytes first; the odd `=` before the rest lets readers before 3.5 stop there.
    pub fn to_bytes(&self) -> Bytes {
        let mut text = format!("{COUNT}={},{BYTES}={}", self.get(COUNT), self.get(BYTES));
        let mut separator = "=;";
        for (key, value) in self.0.iter().filter(|(key, _)| *key != COUNT && *key != BYTES) {
            text += &format!("{separator}{key}={value}");
            separator = ";";
        }
        text.into()
    }

    /// Whether usage `after` a change exceeds the hard limit `key`, which may not be set.
    fn refuses(&self, key: &str, after: i64) -> bool {
        let limit = self.get(key);
        limit > -1 && after > limit
    }
}

/// Paths that have limits.
#[derive(Debug, Clone, Default)]
pub(super) struct QuotaPaths {
    paths: BTreeSet<Box<str>>,
    /// How many of them have which length, bytes: only prefixes of these need to be looked for, however deep a path
    /// is.
    lengths: BTreeMap<usize, usize>,
}

impl QuotaPaths {
    fn insert(&mut self, path: &str) {
        if self.paths.insert(path.into()) {
            *self.lengths.entry(path.len()).or_default() += 1;
        }
    }

    fn remove(&mut self, path: &str) {
        if self.paths.remove(path)
            && let Some(count) = self.lengths.get_mut(&path.len())
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&path.len());
            }
        }
    }

    /// The longest of them that `path` is or lies below.
    fn longest(&self, path: &str) -> Option<&str> {
        let is_prefix = |length: usize| matches!(path.as_bytes().get(length), None | Some(b'/'));
        let lengths = self.lengths.range(..=path.len()).rev().map(|(length, _)| *length);
        let mut prefixes = lengths.filter(|length| is_prefix(*length)).map(|length| &path[..length]);
        prefixes.find_map(|prefix| self.paths.get(prefix)).map(|found| &**found)
    }
}

/// A znode that quotas are made of: the limited path, and what of it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuotaNode<'a> {
    Limits(&'a str),
    Usage(&'a str),
}

fn quota_node(path: &str) -> Option<QuotaNode<'_>> {
    let rest = path.strip_prefix(QUOTA_ROOT)?;
    let limited = |limited: &str| limited.len() > 1 && limited.starts_with('/');
    if let Some(path) = rest.strip_suffix(LIMITS).filter(|path| limited(path)) {
        return Some(QuotaNode::Limits(path));
    }
    rest.strip_suffix(USAGE).filter(|path| limited(path)).map(QuotaNode::Usage)
}

/// Whether a client may overwrite the data at `path` with these. Apache's members read usage when they apply a write
/// below the limited path, and end with a RuntimeException if they cannot (`DataTree.updateQuotaStat`). BadArguments
/// if so. (Limits, and what usage is created with, they do not read there.)
pub(super) fn check_overwrite(path: &str, data: Option<&[u8]>) -> Result<(), ErrorCode> {
    match quota_node(path) {
        Some(QuotaNode::Usage(_)) if !data.is_some_and(is_track) => Err(ErrorCode::BadArguments),
        _ => Ok(()),
    }
}

/// Whether a limits znode may come or go at `path`. Apache's members cut the length of `/zookeeper/quota` off what is
/// above it, for whatever begins with `/zookeeper`, and end if nothing is left that names something (`PathTrie`).
/// BadArguments if so.
pub(super) fn check_place(path: &str) -> Result<(), ErrorCode> {
    let Some(above) = path.strip_suffix(LIMITS).filter(|above| above.starts_with(path::SYSTEM_ROOT)) else {
        return Ok(());
    };
    // Characters, not bytes: a path has none that Java counts as two.
    let mut limited = above.chars().skip(QUOTA_ROOT.len());
    if limited.any(|c| c != '/' && c != ' ') { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

/// Whether Apache's `StatsTrack` reads it. Source: its constructor; Java's `split` drops what is empty at the end.
fn is_track(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let text = text.trim_end_matches([',', ';']);
    let mut pairs = text.split([',', ';']).filter(|pair| !pair.is_empty());
    let starts_well = !text.starts_with([',', ';']);
    text.is_empty()
        || starts_well
            && pairs.all(|pair| {
                let mut parts = pair.trim_end_matches('=').split('=').skip(1);
                parts.next().is_some_and(|value| value.is_empty() || value.parse::<i64>().is_ok())
            })
}

impl Store {
    /// A znode was created with this many bytes of data.
    pub(super) fn quota_created(&mut self, path: &str, bytes: i64) {
        match quota_node(path) {
            Some(QuotaNode::Limits(limited)) => {
                self.quotas.insert(limited);
            }
            Some(QuotaNode::Usage(limited)) => self.recount(limited),
            None => {}
        }
        self.quota_changed(path, 1, bytes);
    }

    /// A znode was deleted that had this many bytes of data.
    pub(super) fn quota_deleted(&mut self, path: &str, bytes: i64) {
        if let Some(QuotaNode::Limits(limited)) = quota_node(path) {
            self.quotas.remove(limited);
        }
        self.quota_changed(path, -1, -bytes);
    }

    /// Usage above `path` has changed.
    pub(super) fn quota_changed(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(limited) = self.quotas.longest(path) else { return };
        let Some(id) = self.tree.find(&[QUOTA_ROOT, limited, USAGE].concat()) else { return };
        let mut usage = Track::parse(self.tree.node(id).data.as_deref().unwrap_or_default());
        usage.add(COUNT, count);
        usage.add(BYTES, bytes);
        self.tree.change_data(id, Some(usage.to_bytes()));
    }

    /// Counts the subtree again and overwrites its usage znode.
    fn recount(&mut self, limited: &str) {
        let Some(usage) = self.tree.find(&[QUOTA_ROOT, limited, USAGE].concat()) else { return };
        let (mut count, mut bytes) = (0, 0);
        if let Some(id) = self.tree.find(limited) {
            self.tree.for_each_below(id, |node| {
                count += 1;
                bytes += node.data_len();
            });
        }
        self.tree.change_data(usage, Some(Track::usage(count, bytes).to_bytes()));
    }

    /// Behind a load: which paths have limits, and how much they use.
    pub(super) fn restore_quotas(&mut self) {
        let Some(root) = self.tree.find(QUOTA_ROOT) else { return };
        let mut limited: Vec<String> = Vec::new();
        self.tree.for_each_below(root, |node| {
            if let Some(QuotaNode::Limits(path)) = quota_node(&node.path) {
                limited.push(path.to_string());
            }
        });
        for path in limited {
            self.recount(&path);
            self.quotas.insert(&path);
        }
    }

    /// Whether a change by `count` znodes and `bytes` bytes at `path` keeps within the hard limits, judged by
    /// what is applied. QuotaExceeded if not; soft limits never refuse.
    pub(super) fn check_quota(&self, path: &str, count: i64, bytes: i64) -> Result<(), ErrorCode> {
        let Some(limited) = self.quotas.longest(path).filter(|_| self.config.enforce_quota) else {
            return Ok(());
        };
        let track = |kind| {
            let node = self.tree.node(self.tree.find(&[QUOTA_ROOT, limited, kind].concat())?);
            Some(Track::parse(node.data.as_deref().unwrap_or_default()))
        };
        let (Some(limits), Some(usage)) = (track(LIMITS), track(USAGE)) else { return Ok(()) };
        let after = |key, delta| usage.get(key).saturating_add(delta);
        if count != 0 && limits.refuses(COUNT_HARD, after(COUNT, count))
            || bytes != 0 && limits.refuses(BYTES_HARD, after(BYTES, bytes))
        {
            return Err(ErrorCode::QuotaExceeded);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_read_and_write_apaches_text() {
        for text in [
            "count=-1,bytes=-1",
            "count=5,bytes=100",
            "count=5,bytes=100=;byteHardLimit=200;countHardLimit=7",
        ] {
            assert_eq!(Track::parse(text.as_bytes()).to_bytes(), text);
        }
        for garbage in ["", "=", "count", "count=x,,;=;=", "\u{fffd}"] {
            assert_eq!(Track::parse(garbage.as_bytes()).get(COUNT), -1, "{garbage:?}");
        }
    }

    /// As 3.8.0 lives or ends: `tests/interop/quorum/test_apache_survives.py`.
    #[test]
    fn what_an_apache_member_would_end_of_is_refused() {
        let (limits, usage) = ("/zookeeper/quota/a/zookeeper_limits", "/zookeeper/quota/a/zookeeper_stats");
        for good in ["", ",", "count=1,bytes=2", "count=5,bytes=9=;byteHardLimit=2", "a==7", "=1", "a=+1;"] {
            assert_eq!(check_overwrite(usage, Some(good.as_bytes())), Ok(()), "{good:?}");
        }
        for bad in ["count", "count=", "count=x", "=", ",count=1", "count=1,=", "\u{fffd}"] {
            assert_eq!(check_overwrite(usage, Some(bad.as_bytes())), Err(ErrorCode::BadArguments), "{bad:?}");
        }
        assert_eq!(check_overwrite(usage, None), Err(ErrorCode::BadArguments));
        assert_eq!((check_overwrite(limits, None), check_place(limits)), (Ok(()), Ok(())));
        for place in ["", "/quota", "/abcde", "/aééé", "/quota/ ", "x"] {
            let path = format!("/zookeeper{place}/zookeeper_limits");
            assert_eq!(check_place(&path), Err(ErrorCode::BadArguments), "{path}");
        }
        for path in
            ["/a/zookeeper_limits", "/zookeeper/quota/zookeeper_stats", "/zookeeper/quotas/zookeeper_limits"]
        {
            assert_eq!((check_place(path), check_overwrite(path, None)), (Ok(()), Ok(())), "{path}");
        }
    }

    #[test]
    fn of_a_long_text_the_beginning_is_read() {
        let text = format!("count=5,bytes=100=;{}", "x=1;".repeat(100_000));
        let track = Track::parse(text.as_bytes());
        assert_eq!((track.get(COUNT), track.get(BYTES)), (5, 100));
        assert!(track.to_bytes().len() <= TRACK_BYTES_MAX);
    }

    #[test]
    fn longest_prefix() {
        let mut paths = QuotaPaths::default();
        for path in ["/a", "/a/b/c", "/a/b/c", "/x"] {
            paths.insert(path);
        }
        paths.remove("/x");
        paths.remove("/y");
        for (path, expected) in [
            ("/a", Some("/a")),
            ("/a/b", Some("/a")),
            ("/a/b/c/d", Some("/a/b/c")),
            ("/a/b/c", Some("/a/b/c")),
            ("/a/b/cc", Some("/a")),
            ("/ab", None),
            ("/x/y", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(paths.longest(path), expected, "{path}");
        }
        assert_eq!(paths.lengths.len(), 2);
        let deep = "/a".repeat(50_000);
        assert!((0..10_000).all(|_| paths.longest(&deep) == Some("/a")), "and in no time");
    }

    #[test]
    fn which_znodes_quotas_are_made_of() {
        for (path, expected) in [
            ("/zookeeper/quota/a/b/zookeeper_limits", Some(QuotaNode::Limits("/a/b"))),
            ("/zookeeper/quota/a/zookeeper_stats", Some(QuotaNode::Usage("/a"))),
            ("/zookeeper/quota/zookeeper_limits", None),
            ("/zookeeper/quotas/a/zookeeper_limits", None),
            ("/a/zookeeper_limits", None),
        ] {
            assert_eq!(quota_node(path), expected, "{path}");
        }
    }
}
