//! A data directory as lines of text: what a member would hold if it started on it.
//!
//! Reads only, with the member's own recovery; works on Zoometry's and on Apache's directories alike, best
//! while no server runs on them. One line for each session and znode, sorted, so that two dumps can be
//! compared with `diff`:
//!
//! ```text
//! # last zxid 0x2f, snapshot 0x0, 47 transactions replayed
//! # digest 0x2099bf4ba, 0 mismatches
//! session 0x100000000000005 timeout_ms=30000
//! znode /a czxid=0x2 mzxid=0x2 pzxid=0x2 ctime=1700000000000 mtime=1700000000000 version=0 cversion=0
//!   aversion=0 owner=0x0 children=0 data=2 crc32=d8932aac acl=world:anyone:cdrwa        (one line)
//! ```
//!
//! Values are those that clients see (cversion counts deletions, too), except the owner, which is the stored
//! word. Characters that would break a line are escaped as in Rust.

use crate::disk::FileDisk;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use zoometry_replica::storage::RecoveryOptions;
use zoometry_replica::storage::recovery::{Access, recover_store};
use zoometry_replica::storage::snapshot::{SnapshotItem, SnapshotNode};
use zoometry_replica::store::{Store, StoreConfig};
use zoometry_wire::records::perms;
use zoometry_wire::{Acl, path};

/// Znodes taken from the store at a time.
const SLICE_NODES: usize = 1024;

/// Writes the dump of `data_dir` (and `data_log_dir`, which may be the same) to `out`. Memory: the store, and
/// one line for each znode.
pub fn dump(data_dir: &Path, data_log_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let disk = FileDisk::open_existing(data_dir, data_log_dir)?;
    let options = RecoveryOptions { access: Access::ReadOnly, trust_empty: true };
    let config = StoreConfig { digest: true, ..StoreConfig::default() };
    let recovered = recover_store(&disk, options, config)
        .with_context(|| format!("cannot read the data directory {}", data_dir.display()))?;
    let found = &recovered.found;
    let snapshot = found.snapshot.map_or("no snapshot".into(), |zxid| format!("snapshot {zxid}"));
    writeln!(out, "# last zxid {}, {snapshot}, {} transactions replayed", found.last_zxid, found.replayed)?;
    for warning in &found.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    let mismatches = recovered.digest_mismatches;
    writeln!(out, "# digest {:#x}, {mismatches} mismatches", found.state.digest())?;
    for (session, timeout_ms) in found.state.sessions() {
        writeln!(out, "session {session} timeout_ms={timeout_ms}")?;
    }
    for line in znodes(&found.state).values() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A line for each znode, by path.
fn znodes(store: &Store) -> BTreeMap<String, String> {
    let mut acls: BTreeMap<i64, Vec<Acl>> = BTreeMap::from([(-1, Acl::open())]);
    acls.extend(store.snapshot_head().into_iter().filter_map(|item| match item {
        SnapshotItem::Acl(index, list) => Some((index, list)),
        SnapshotItem::Session(..) | SnapshotItem::Node(_) => None,
    }));
    let mut nodes = BTreeMap::new();
    let mut walk = store.start_walk();
    while store.walk(&mut walk, SLICE_NODES, &mut |node| {
        let path = if node.path.is_empty() { "/".to_owned() } else { node.path.clone() };
        nodes.insert(path, node);
    }) {}
    let mut children: BTreeMap<String, i32> = BTreeMap::new();
    for path in nodes.keys().filter(|path| *path != "/") {
        *children.entry(path::parent(path).to_owned()).or_default() += 1;
    }
    let line = |(path, node): (String, SnapshotNode)| {
        let count = children.get(&path).copied().unwrap_or(0);
        let acl = acls.get(&node.acl).map(Vec::as_slice).unwrap_or_default();
        let line = znode(&path, &node, count, acl);
        (path, line)
    };
    nodes.into_iter().map(line).collect()
}

fn znode(path: &str, node: &SnapshotNode, children: i32, acl: &[Acl]) -> String {
    let stat = &node.stat;
    let data = match &node.data {
        None => "data=null".to_owned(),
        Some(data) => format!("data={} crc32={:08x}", data.len(), crc32fast::hash(data)),
    };
    let acl: Vec<_> = acl.iter().map(acl_text).collect();
    format!(
        "znode {} czxid={} mzxid={} pzxid={} ctime={} mtime={} version={} cversion={} aversion={} owner={} \
         children={children} {data} acl={}",
        path.escape_debug(),
        stat.czxid,
        stat.mzxid,
        stat.pzxid,
        stat.ctime,
        stat.mtime,
        stat.version,
        stat.cversion.wrapping_mul(2).wrapping_sub(children),
        stat.aversion,
        stat.ephemeral_owner,
        acl.join(","),
    )
}

/// As the shell writes it: `scheme:id:cdrwa`.
fn acl_text(acl: &Acl) -> String {
    let letters = [
        (perms::CREATE, 'c'),
        (perms::DELETE, 'd'),
        (perms::READ, 'r'),
        (perms::WRITE, 'w'),
        (perms::ADMIN, 'a'),
    ];
    let given: String =
        letters.iter().filter(|(bit, _)| acl.perms & bit != 0).map(|(_, letter)| *letter).collect();
    format!("{}:{}:{given}", acl.id.scheme.escape_debug(), acl.id.id.escape_debug())
}
