//! What the sessions of a worker were shown of each key, so that every reply is held against it.
//!
//! **Values describe themselves.** A value of at least [`MARK`] bytes begins with its key, the session that wrote it, the xid of that
//! write, and a check over these and its length; the rest is cut from the run's [`Filler`], so any value can be compared with what
//! it must be. Shorter values are filling only.
//!
//! **Versions.** Every key's newest state that a session of this worker was shown (by a read or an acknowledgement) is remembered:
//! mzxid, version, length and whose write it was. Each reply with a Stat of the key is compared:
//! - the same mzxid must mean the same version, length and write;
//! - a later mzxid must have a later version, an earlier one an earlier;
//! - an earlier mzxid is *stale* if the session had seen a zxid that is not before the newer state. ZooKeeper promises that a client
//!   never sees an older state than it has seen, wherever it is connected; and the zxid in the header of a reply says
//!   how far its server was. Without that a read may be behind: other sessions may be ahead.
//!
//! Nothing is concluded from a write that was not acknowledged. Keys from [`KEYS_MAX`] on have no entry: only their values are checked.

use super::encode::{Filler, WRITER_PREPARE};
use super::receiving::STAT;
use crate::promises::{Promise, Promises};
use zoometry_wire::Zxid;

/// Keys with an entry, per worker: 24 bytes each, and 16 in the ledger.
pub(super) const KEYS_MAX: u64 = 1 << 20;
/// Lists up to this length are checked name by name; longer ones by their count and length.
const NAMES_MAX: u64 = 1024;

/// Who wrote a value: the session's number in the run and the xid of its request. `NONE`: the value is too short to tell, or was not
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Writer(u64);

impl Writer {
    /// Not known.
    pub(super) const NONE: Writer = Writer(0);

    /// Xids are never 0, so no writer is [`NONE`](Self::NONE).
    #[inline]
    pub(super) fn new(session: u32, xid: i32) -> Writer {
        Writer(u64::from(session) << 32 | u64::from(xid as u32))
    }

    /// As a mark holds it.
    #[inline]
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// The reverse of [`number`](Self::number).
    #[inline]
    pub(super) fn of_number(number: u64) -> Writer {
        Writer(number)
    }
}

impl std::fmt::Display for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match ((self.0 >> 32) as u32, self.0 as u32) {
            (0, 0) => f.write_str("a write that is not known"),
            (WRITER_PREPARE, _) => f.write_str("the run's preparation"),
            (session, xid) => write!(f, "session {session}, xid {xid}"),
        }
    }
}

/// What a reply says of a key's znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// 0: nothing is known.
    pub(super) mzxid: Zxid,
    pub(super) version: i32,
    pub(super) length: u32,
    pub(super) writer: Writer,
}

impl State {
    /// From a Stat as it stands on the wire.
    #[inline]
    pub(super) fn of(stat: &[u8; STAT]) -> State {
        let four = |at: usize| i32::from_be_bytes(stat[at..at + 4].try_into().expect("four bytes"));
        State {
            mzxid: Zxid(i64::from_be_bytes(stat[8..16].try_into().expect("eight bytes"))),
            version: four(32),
            length: four(52) as u32,
            writer: Writer::NONE,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "version {} (mzxid {}, {} bytes, of {})",
            self.version, self.mzxid, self.length, self.writer
        )
    }
}

/// Who asked, for messages and for what it may not be shown any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// The session's number in the run.
    pub(super) session: u32,
    /// The member that answered, by its place in the list.
    pub(super) member: u16,
    /// The highest zxid that the session had seen before this reply.
    pub(super) seen: Zxid,
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.session {
            SESSION_AFTERWARDS => f.write_str("the check at the end"),
            session => write!(f, "session {session} at server {}", self.member + 1),
        }
    }
}

/// Stands for a session where the run looks at what is left.
pub(super) const SESSION_AFTERWARDS: u32 = u32::MAX;

/// One worker's, or everybody's.
#[derive(Debug, Default)]
pub(crate) struct Views {
    newest: Vec<State>,
    /// When all keys were there.
    prepared: Zxid,
    pub(crate) promises: Promises,
}

impl Views {
    /// For so many keys, which were all there at `prepared`.
    pub(super) fn new(keys: u64, prepared: Zxid) -> Views {
        let newest = vec![State::default(); keys.min(KEYS_MAX) as usize];
        Views { newest, prepared, promises: Promises::default() }
    }

    /// Replies about these keys may come next. All their entries are read at once: an entry is seldom in the processor's cache, and one
    /// after the other, each reply would wait for its own.
    #[inline]
    pub(super) fn expect(&self, keys: impl Iterator<Item = u64>) {
        // An entry may lie on two cache lines: something from either end.
        let of = |state: &State| state.mzxid.0 | i64::from(state.length);
        let read = keys.map(|key| self.newest.get(key as usize).map_or(0, of));
        std::hint::black_box(read.fold(0, |all, one| all | one));
    }

    /// A getData of the key was answered. False if the answer contradicts what was shown before.
    #[inline]
    pub(super) fn value(&mut self, key: u64, body: &[u8], filler: &Filler, asker: Asker) -> bool {
        self.promises.checked(Promise::WrongValue, 1);
        let Some((value, stat)) = value_and_stat(body) else {
            let long = body.len();
            return self.wrong(key, asker, || {
                format!("the reply of {long} bytes is no value with its length and a Stat")
            });
        };
        let mut state = State::of(stat);
        match filler.read(key, value) {
            Ok(writer) => state.writer = writer,
            Err(why) => return self.wrong(key, asker, || format!("{why}, at {state}")),
        }
        self.promises.short_values += u64::from(state.writer == Writer::NONE);
        if state.length as usize != value.len() {
            let long = value.len();
            return self.wrong(key, asker, || format!("{long} bytes were sent for {state}"));
        }
        self.compared(key, state, asker)
    }

    /// A reply of which only the Stat is about the key: exists, or an acknowledgement by its `writer`. As [`value`](Self::value).
    #[inline]
    pub(super) fn stat(&mut self, key: u64, stat: &[u8], writer: Writer, asker: Asker) -> bool {
        match stat.try_into() {
            Ok(stat) => self.compared(key, State { writer, ..State::of(stat) }, asker),
            Err(_) => self.wrong(key, asker, || format!("a Stat of {} bytes", stat.len())),
        }
    }

    /// A write of `length` bytes was acknowledged.
    #[inline]
    pub(super) fn acknowledged(&mut self, key: u64, stat: &[u8], writer: Writer, length: u32, asker: Asker) {
        if let Ok(stat) = <&[u8; STAT]>::try_from(stat)
            && State::of(stat).length != length
        {
            let state = State::of(stat);
            self.wrong(key, asker, || format!("{length} bytes were written, acknowledged as {state}"));
            return;
        }
        self.stat(key, stat, writer, asker);
    }

    /// The key's znode is not there, says a reply.
    #[cold]
    pub(super) fn no_node(&mut self, key: u64, asker: Asker) {
        // A member that the session has not seen that far may not have it yet.
        if asker.seen >= self.prepared {
            let prepared = self.prepared;
            self.promises.broke(Promise::StaleRead, 1, || {
                format!(
                    "{asker} was told that key {key} does not exist; it was created before zxid {prepared}, and the \
                     session had seen {}",
                    asker.seen
                )
            });
        }
    }

    #[inline]
    fn compared(&mut self, key: u64, state: State, asker: Asker) -> bool {
        match (key as usize) < self.newest.len() {
            true => self.promises.checked(Promise::StaleRead, 1),
            false => self.promises.untracked_reads += 1,
        }
        self.compare(key, state, asker)
    }

    #[inline]
    fn compare(&mut self, key: u64, state: State, asker: Asker) -> bool {
        let Some(newest) = self.newest.get_mut(key as usize) else { return true };
        let before = *newest;
        if state.mzxid == before.mzxid {
            let same_writer = state.writer == before.writer
                || state.writer == Writer::NONE
                || before.writer == Writer::NONE;
            if same_writer && state.version == before.version && state.length == before.length {
                newest.writer = Writer(before.writer.0 | state.writer.0);
                return true;
            }
        } else if state.mzxid > before.mzxid {
            *newest = state;
            if state.version > before.version || before.mzxid.0 == 0 {
                return true;
            }
        } else if before.mzxid <= asker.seen {
            return self.stale(key, state, before, asker);
        } else if state.version < before.version {
            return true;
        }
        self.wrong(key, asker, || format!("{state} contradicts {before}, as another reply had it"))
    }

    #[cold]
    fn stale(&mut self, key: u64, state: State, before: State, asker: Asker) -> bool {
        self.promises.broke(Promise::StaleRead, 1, || {
            format!(
                "{asker} was shown key {key} at {state}, when {before} was known and the session had seen zxid {}",
                asker.seen
            )
        });
        false
    }

    #[cold]
    fn wrong(&mut self, key: u64, asker: Asker, how: impl FnOnce() -> String) -> bool {
        self.promises.broke(Promise::WrongValue, 1, || format!("key {key}, {asker}: {}", how()));
        false
    }

    /// A getChildren2 was answered that must name `count` keys, by names of `name_bytes` bytes.
    #[inline]
    pub(super) fn children(
        &mut self,
        key: u64,
        body: &[u8],
        (count, name_bytes): (u64, usize),
        asker: Asker,
    ) {
        if asker.seen < self.prepared {
            return;
        }
        self.promises.checked(Promise::WrongList, 1);
        if let Err(why) = whole_list(body, count, name_bytes) {
            self.wrong_list(key, &why, asker);
        }
    }

    #[cold]
    fn wrong_list(&mut self, key: u64, why: &str, asker: Asker) {
        self.promises.broke(Promise::WrongList, 1, || format!("the parent of key {key}, {asker}: {why}"));
    }

    /// Adds another worker's: what one was shown must not contradict what another was.
    pub(super) fn merge(&mut self, other: Views) {
        self.promises.merge(other.promises);
        if self.newest.is_empty() {
            (self.newest, self.prepared) = (other.newest, other.prepared);
            return;
        }
        for (key, state) in other.newest.into_iter().enumerate().filter(|(_, state)| state.mzxid.0 != 0) {
            let nobody = Asker { session: SESSION_AFTERWARDS, member: 0, seen: Zxid(0) };
            self.compare(key as u64, state, nobody);
        }
    }
}

/// The parts of getData's reply, if it is exactly that. Null is as good as empty.
fn value_and_stat(body: &[u8]) -> Option<(&[u8], &[u8; STAT])> {
    let (value, stat) = body.split_last_chunk::<STAT>()?;
    let (length, value) = value.split_first_chunk::<4>()?;
    let length = i32::from_be_bytes(*length).max(0) as usize;
    (length == value.len()).then_some((value, stat))
}

/// Whether a reply to getChildren2 names `count` keys: `k` and their number among their siblings, each once.
fn whole_list(body: &[u8], count: u64, name_bytes: usize) -> Result<(), String> {
    let malformed = || format!("{} bytes are no list of children with a Stat", body.len());
    let (names, stat) = body.split_last_chunk::<STAT>().ok_or_else(malformed)?;
    let (listed, names) = names.split_first_chunk::<4>().ok_or_else(malformed)?;
    let listed = u64::from(u32::from_be_bytes(*listed));
    let in_stat = u64::from(u32::from_be_bytes(stat[56..60].try_into().expect("four bytes")));
    if listed != count || in_stat != count {
        return Err(format!("{listed} children are listed, the Stat says {in_stat}, there are {count}"));
    }
    if names.len() as u64 != count * (4 + name_bytes as u64) {
        return Err(format!("{count} names of {name_bytes} bytes do not take {} bytes", names.len()));
    }
    if count > NAMES_MAX {
        return Ok(());
    }
    let mut there = [0u64; NAMES_MAX as usize / 64];
    for entry in names.chunks_exact(4 + name_bytes) {
        let name = &entry[4..];
        let number = std::str::from_utf8(&name[1..]).ok().and_then(|digits| digits.parse::<u64>().ok());
        let Some(number) = number.filter(|number| name[0] == b'k' && *number < count) else {
            return Err(format!("{} is listed, which is not there", String::from_utf8_lossy(name)));
        };
        let (word, bit) = (&mut there[number as usize / 64], 1 << (number % 64));
        if *word & bit != 0 {
            return Err(format!("{} is listed twice", String::from_utf8_lossy(name)));
        }
        *word |= bit;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
