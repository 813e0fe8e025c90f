//! Request bodies straight into the out buffer, from borrowed parts: the hot path allocates nothing.
//!
//! Paths are ASCII or at least free of supplementary characters (ZooKeeper refuses those), so their bytes are
//! their encoding. Layouts: reference section 1.1; `tests` compares each with what `wire` writes.

use super::views::Writer;
use crate::draw::{Draw, scramble, seed_of};
use crate::spec::Spec;
use bytes::{BufMut, BytesMut};
use zoometry_wire::OpCode;
use zoometry_wire::jute::Record;
use zoometry_wire::records::perms;
use zoometry_wire::request::{CreateMode, MultiHeader};

/// Bytes at the start of a written value that describe it: key, session, xid, check; four each.
pub(super) const MARK: usize = 16;
/// Stands for a session where the run's preparation wrote.
pub(super) const WRITER_PREPARE: u32 = u32::MAX;
/// Values up to this length are compared byte by byte; of longer ones the mark, both ends and one piece in between.
const WHOLE_MAX: usize = 1024;
/// The length of such a piece.
const PIECE: usize = 256;

/// Values are cut from this: bytes that do not compress.
#[derive(Debug)]
pub(super) struct Filler {
    bytes: Box<[u8]>,
    seed: u64,
}

impl Filler {
    /// Enough for every value that the workload writes.
    pub(super) fn of(spec: &Spec) -> Self {
        let written = spec.phases.iter().map(|phase| phase.value.largest());
        Self::new(spec.seed, written.chain([spec.data.value.largest()]).max().unwrap_or(0))
    }

    /// Enough for values of up to `largest` bytes.
    pub(super) fn new(seed: u64, largest: u32) -> Self {
        let mut draw = Draw::at(seed_of(seed, "values"), 0);
        let words = (largest as usize).div_ceil(8) + 1;
        Self { bytes: (0..words).flat_map(|_| draw.bits().to_le_bytes()).collect(), seed }
    }

    /// The longest value that can be cut from it, or a little more.
    pub(super) fn largest(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a value of `length` bytes that begins, if it is long enough, with its mark.
    #[inline]
    pub(super) fn put(&self, out: &mut BytesMut, length: u32, key: u64, writer: Writer) {
        let length = (length as usize).min(self.bytes.len());
        out.put_i32(length as i32);
        if length < MARK {
            out.extend_from_slice(&self.bytes[..length]);
            return;
        }
        let (key, writer) = (key as u32, writer.number());
        out.put_u32(key);
        out.put_u64(writer);
        out.put_u32(self.check(key, writer, length));
        out.extend_from_slice(&self.bytes[MARK..length]);
    }

    /// Says who wrote a value of that key, or why it is none that a run with this workload writes.
    #[inline]
    pub(super) fn read(&self, key: u64, value: &[u8]) -> Result<Writer, String> {
        let length = value.len();
        let Some((mark, rest)) = value.split_first_chunk::<MARK>() else {
            return match self.bytes.get(..length) == Some(value) {
                true => Ok(Writer::NONE),
                false => Err(format!("{length} bytes that were never written")),
            };
        };
        let four = |at: usize| u32::from_be_bytes(mark[at..at + 4].try_into().expect("four bytes"));
        let writer = u64::from(four(4)) << 32 | u64::from(four(8));
        if four(0) != key as u32 || four(12) != self.check(four(0), writer, length) {
            return Err(self.describe(mark, length));
        }
        let filled = match self.bytes.get(MARK..length) {
            None => false,
            Some(filling) if length <= WHOLE_MAX => filling == rest,
            Some(filling) => {
                // Another piece for every write of the key.
                let at = (four(8) as usize).wrapping_mul(PIECE) % (rest.len() - PIECE);
                [0, at, rest.len() - PIECE]
                    .into_iter()
                    .all(|at| filling[at..at + PIECE] == rest[at..at + PIECE])
            }
        };
        match filled {
            true => Ok(Writer::of_number(writer)),
            false => Err(format!("{length} bytes of {}, which wrote others", Writer::of_number(writer))),
        }
    }

    #[cold]
    fn describe(&self, mark: &[u8; MARK], length: usize) -> String {
        let four = |at: usize| u32::from_be_bytes(mark[at..at + 4].try_into().expect("four bytes"));
        let writer = u64::from(four(4)) << 32 | u64::from(four(8));
        match four(12) == self.check(four(0), writer, length) {
            true => format!("the value of key {}, of {}", four(0), Writer::of_number(writer)),
            false => format!("{length} bytes without a mark that fits them"),
        }
    }

    #[inline]
    fn check(&self, key: u32, writer: u64, length: usize) -> u32 {
        (scramble(self.seed ^ writer ^ scramble(u64::from(key) << 32 | length as u64)) >> 32) as u32
    }
}

/// A string that holds no supplementary character.
pub(super) fn put_path(out: &mut BytesMut, path: &str) {
    out.put_i32(path.len() as i32);
    out.extend_from_slice(path.as_bytes());
}

/// exists, getData, getChildren2.
pub(super) fn path_watch(out: &mut BytesMut, path: &str, watch: bool) {
    put_path(out, path);
    out.put_u8(u8::from(watch));
}

/// delete, check; and addWatch, removeWatches, where the number is a mode.
pub(super) fn path_number(out: &mut BytesMut, path: &str, number: i32) {
    put_path(out, path);
    out.put_i32(number);
}

/// setData without a version check; `value` appends the value with its length.
pub(super) fn set_data(out: &mut BytesMut, path: &str, value: impl FnOnce(&mut BytesMut)) {
    put_path(out, path);
    value(out);
    out.put_i32(-1);
}

/// create, open to everybody.
pub(super) fn create(out: &mut BytesMut, path: &str, mode: CreateMode, value: impl FnOnce(&mut BytesMut)) {
    put_path(out, path);
    value(out);
    out.put_i32(1);
    out.put_i32(perms::ALL);
    put_path(out, "world");
    put_path(out, "anyone");
    out.put_i32(mode as i32);
}

/// multi: check that the znode is there, and set its data.
pub(super) fn check_and_set(out: &mut BytesMut, path: &str, value: impl FnOnce(&mut BytesMut)) {
    let header = |op: OpCode| MultiHeader { op: op.code(), done: false, err: -1 };
    header(OpCode::Check).encode(out);
    path_number(out, path, -1);
    header(OpCode::SetData).encode(out);
    set_data(out, path, value);
    MultiHeader::END.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use zoometry_wire::request::{CreateRequest, PathVersion, PathWatch, SetDataRequest};
    use zoometry_wire::{Acl, Request};

    fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    #[test]
    fn bodies_are_those_of_wire() {
        let filler = Filler::new(1, 100);
        let value = |out: &mut BytesMut| filler.put(out, 100, 9, Writer::new(7, 3));
        let data = Some(Bytes::copy_from_slice(&written(value)[4..]));
        assert_eq!(data.as_ref().unwrap().len(), 100);
        let path = || "/a/b".to_string();
        let set = SetDataRequest { path: path(), data: data.clone(), version: -1 };
        let check = PathVersion { path: path(), version: -1 };
        let cases = [
            (written(|out| path_watch(out, "/a/b", true)), {
                Request::GetData(PathWatch { path: path(), watch: true })
            }),
            (written(|out| path_number(out, "/a/b", -1)), Request::Delete(check.clone())),
            (written(|out| set_data(out, "/a/b", value)), Request::SetData(set.clone())),
            (written(|out| create(out, "/a/b", CreateMode::Ephemeral, value)), {
                Request::Create(CreateRequest { path: path(), data, acl: Acl::open(), flags: 1 })
            }),
            (
                written(|out| check_and_set(out, "/a/b", value)),
                Request::Multi(vec![Request::Check(check), Request::SetData(set)]),
            ),
        ];
        for (ours, request) in cases {
            assert_eq!(ours, written(|out| request.encode(out)), "{request:?}");
        }
    }

    #[test]
    fn values_describe_themselves() {
        let filler = Filler::new(1, 5000);
        let writer = Writer::new(7, 3);
        for length in [0, 1, 15, 16, 17, 100, 1024, 1025, 5000] {
            let out = written(|out| filler.put(out, length, 42, writer));
            assert_eq!(out[..4], (length as i32).to_be_bytes());
            let value = &out[4..];
            assert_eq!(value.len(), length as usize);
            let told = if (length as usize) < MARK { Writer::NONE } else { writer };
            assert_eq!(filler.read(42, value), Ok(told), "{length}");
            if length as usize >= MARK {
                filler.read(43, value).expect_err("it is another key's");
                filler.read(42, &value[..MARK - 1]).expect_err("it was cut short");
                filler.read(42, &value[..value.len() - 1]).expect_err("it was cut short");
                filler.read(42, &[value, &[0]].concat()).expect_err("it was lengthened");
            }
            for at in [0, MARK - 1, MARK, length.saturating_sub(1) as usize] {
                let mut other = value.to_vec();
                if let Some(byte) = other.get_mut(at) {
                    *byte ^= 1;
                    filler.read(42, &other).expect_err("it was changed");
                }
            }
        }
    }

    #[test]
    fn whatever_the_largest_value_is_the_filling_is_the_same() {
        let (small, large) = (Filler::new(1, 100), Filler::new(1, 100_000));
        let out = written(|out| small.put(out, 100, 42, Writer::new(7, 3)));
        assert_eq!(large.read(42, &out[4..]), Ok(Writer::new(7, 3)));
        let out = written(|out| large.put(out, 100_000, 42, Writer::new(7, 3)));
        small.read(42, &out[4..]).expect_err("nothing so long was ever written");
    }
}
