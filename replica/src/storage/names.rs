//! File names: `log.<hex zxid>`, `snapshot.<hex zxid>[.gz|.snappy]`, and the names of files that are not finished.
//! Source: `P/Util.java`; reference §9.1.

use zoometry_wire::Zxid;

/// Unfinished files carry this in front of their name until they are whole and renamed. Apache's server
/// does not look at such names.
pub const UNFINISHED: &str = "tmp.";

/// In front of the name of a snapshot that takes the place of everything else.
const INSTALLING: &str = "install.";

/// The name of the log file whose first transaction is `zxid`.
pub fn log(zxid: Zxid) -> String {
    format!("log.{:x}", zxid.0)
}

/// The name of the snapshot file for `zxid`.
pub fn snapshot(zxid: Zxid, compression: Compression) -> String {
    let extension = match compression {
        Compression::None => "",
        Compression::Gzip => ".gz",
        Compression::Snappy => ".snappy",
    };
    format!("snapshot.{:x}{extension}", zxid.0)
}

/// The name of the snapshot for `zxid` while it takes the place of everything else; it is plain.
pub fn installing(zxid: Zxid) -> String {
    format!("{INSTALLING}{}", snapshot(zxid, Compression::None))
}

/// The zxid of a snapshot that takes the place of everything else; `None` for other names.
pub fn parse_installing(name: &str) -> Option<Zxid> {
    match parse_snapshot(name.strip_prefix(INSTALLING)?)? {
        (zxid, Compression::None) => Some(zxid),
        _ => None,
    }
}

/// The name that `name` has while it is being written.
pub fn unfinished(name: &str) -> String {
    format!("{UNFINISHED}{name}")
}

/// The zxid of a log file's name; `None` for other names.
pub fn parse_log(name: &str) -> Option<Zxid> {
    hex(name.strip_prefix("log.")?)
}

/// The zxid of a snapshot's name, with its way of compression; `None` for other names.
pub fn parse_snapshot(name: &str) -> Option<(Zxid, Compression)> {
    let rest = name.strip_prefix("snapshot.")?;
    let (digits, compression) = match rest.split_once('.') {
        None => (rest, Compression::None),
        Some((digits, "gz")) => (digits, Compression::Gzip),
        Some((digits, "snappy")) => (digits, Compression::Snappy),
        Some(_) => return None,
    };
    Some((hex(digits)?, compression))
}

/// How a snapshot is compressed; the file's extension says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in the framing of xerial's Java library.
    Snappy,
}

/// Java's `Long.parseLong(text, 16)`, without signs: zxids are not negative.
fn hex(digits: &str) -> Option<Zxid> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| i64::from_str_radix(digits, 16).ok().map(Zxid)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_apaches() {
        assert_eq!(log(Zxid(0x1_0000_0002)), "log.100000002");
        assert_eq!(snapshot(Zxid(0), Compression::None), "snapshot.0");
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let name = snapshot(Zxid(255), compression);
            assert_eq!(parse_snapshot(&name), Some((Zxid(255), compression)), "{name}");
        }
        assert_eq!(parse_log("log.1a"), Some(Zxid(26)));
        assert_eq!(parse_snapshot("snapshot.0"), Some((Zxid(0), Compression::None)));
        assert_eq!(parse_snapshot("snapshot.ff.gz"), Some((Zxid(255), Compression::Gzip)));
        assert_eq!(parse_snapshot("snapshot.ff.snappy"), Some((Zxid(255), Compression::Snappy)));
    }

    #[test]
    fn a_snapshot_that_is_being_installed_is_not_a_snapshot_yet() {
        assert_eq!(installing(Zxid(255)), "install.snapshot.ff");
        assert_eq!(parse_installing("install.snapshot.ff"), Some(Zxid(255)));
        assert_eq!(parse_snapshot("install.snapshot.ff"), None);
        assert_eq!(parse_installing("snapshot.ff"), None);
        assert_eq!(parse_installing("install.snapshot.ff.gz"), None);
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in ["log.", "log", "log.1.tmp", "log.+1", "log.-1", "log.fffffffffffffffff", "tmp.log.1"] {
            assert_eq!(parse_log(name), None, "{name}");
        }
        for name in ["snapshot.", "snapshot.1.bz2", "snapshot.x", "tmp.snapshot.1", "currentEpoch"] {
            assert_eq!(parse_snapshot(name), None, "{name}");
        }
    }
}
