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
use std::sync::Arc;
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
    let options = RecoveryOptions { access: Access::ReadOnly, trust_empty: true, tail_limit: 0 };
    let config = StoreConfig { digest: true, ..StoreConfig::default() };
    let recovered = recover_store(&disk, options, config)
        .with_context(|| format!("cannot read the data directory {}", data_dir.display()))?;
    let found = &recovered.found;
    let snapshot = found.snapshot.map_or("no snapshot".into(), |zxid| format!("snapshot {zxid}"));
    writeln!(out, "# last zxid {}, {snapshot}, {} transactions replayed", found.last_zxid, found.replayed)?;
    for warning in &found.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    if let Some(damage) = &found.damage {
        writeln!(out, "# damage: {damage}")?;
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
    let mut acls: BTreeMap<i64, Arc<[Acl]>> = BTreeMap::from([(-1, Acl::open().into())]);
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
        let acl = acls.get(&node.acl).map(|list| &**list).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use zoometry_replica::storage::log::{LogOptions, TxnLog};
    use zoometry_wire::txn::{CreateTxn, TxnHeader};
    use zoometry_wire::{Id, OpCode, Record, SessionId, Txn, TxnRecord, Zxid};

    fn text(home: &Path) -> String {
        let mut out = Vec::new();
        dump(home, home, &mut out).expect("dump");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_directory_as_lines() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let disk = FileDisk::open(home.path(), home.path()).expect("open");
        let mut log = TxnLog::new(disk, LogOptions { prealloc_bytes: 0, ..LogOptions::default() });
        let acl =
            vec![Acl { perms: perms::READ | perms::ADMIN, id: Id { scheme: "ip".into(), id: "::1".into() } }];
        let create = |path: &str, data: Option<&'static [u8]>, ephemeral, parent_cversion| {
            let (path, data) = (path.to_owned(), data.map(bytes::Bytes::from_static));
            Txn::Create(CreateTxn { path, data, acl: acl.clone(), ephemeral, parent_cversion })
        };
        let txns = [
            (OpCode::CreateSession, Txn::CreateSession(30_000)),
            (OpCode::Create, create("/a", Some(b"hi"), false, 1)),
            (OpCode::Create, create("/a/line\nbreak", None, true, 1)),
            (OpCode::Create, create("/a/gone", Some(b""), false, 2)),
            (OpCode::Delete, Txn::Delete("/a/gone".into())),
        ];
        for (at, (kind, txn)) in txns.into_iter().enumerate() {
            let zxid = Zxid(at as i64 + 1);
            let header = TxnHeader {
                session: SessionId(0x77),
                cxid: 1,
                zxid,
                time_ms: 9000 + zxid.0,
                kind: kind.code(),
            };
            log.append(zxid, &TxnRecord { header, txn, digest: None }.to_bytes()).expect("append");
        }
        log.commit().expect("commit");
        let text = text(home.path());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "# last zxid 0x5, no snapshot, 5 transactions replayed");
        assert!(lines[1].starts_with("# digest 0x") && lines[1].ends_with(", 0 mismatches"), "{}", lines[1]);
        assert_eq!(lines[2], "session 0x77 timeout_ms=30000");
        assert_eq!(
            lines[4],
            "znode /a czxid=0x2 mzxid=0x2 pzxid=0x5 ctime=9002 mtime=9002 version=0 cversion=3 aversion=0 \
             owner=0x0 children=1 data=2 crc32=d8932aac acl=ip:::1:ra"
        );
        assert_eq!(
            lines[5],
            "znode /a/line\\nbreak czxid=0x3 mzxid=0x3 pzxid=0x3 ctime=9003 mtime=9003 version=0 cversion=0 \
             aversion=0 owner=0x77 children=0 data=null acl=ip:::1:ra"
        );
        let paths: Vec<_> = lines[3..].iter().map(|line| line.split(' ').nth(1).expect("a path")).collect();
        assert_eq!(
            paths,
            ["/", "/a", "/a/line\\nbreak", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]
        );
    }

    #[test]
    fn what_is_no_data_directory_is_named() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let error = dump(home.path(), home.path(), &mut Vec::new()).expect_err("nothing there").to_string();
        assert!(error.contains("version-2"), "{error}");
    }
}
