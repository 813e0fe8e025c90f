//! Request bodies straight into the out buffer, from borrowed parts: the hot path allocates nothing.
//!
//! Paths are ASCII or at least free of supplementary characters (ZooKeeper refuses those), so their bytes are
//! their encoding. Layouts: reference section 1.1; `tests` compares each with what `wire` writes.

use bytes::{BufMut, BytesMut};
use zoometry_wire::OpCode;
use zoometry_wire::jute::Record;
use zoometry_wire::records::perms;
use zoometry_wire::request::{CreateMode, MultiHeader};

/// Bytes at the start of a written value that say who wrote it: session number and sequence.
pub(super) const STAMP: usize = 16;

/// Values are cut from this: bytes that do not compress.
#[derive(Debug)]
pub(super) struct Filler(Box<[u8]>);

impl Filler {
    /// Enough for values of up to `largest` bytes.
    pub(super) fn new(seed: u64, largest: u32) -> Self {
        // splitmix64: its quality is more than a value needs, and it is the same everywhere.
        let mut state = seed;
        let words = (largest as usize).div_ceil(8) + 1;
        let bytes = (0..words).flat_map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)).to_le_bytes()
        });
        Self(bytes.collect())
    }

    /// Appends a value of `length` bytes that begins, if it is long enough, with its writer's stamp.
    pub(super) fn put(&self, out: &mut BytesMut, length: u32, writer: u64, sequence: u64) {
        let length = (length as usize).min(self.0.len());
        out.put_i32(length as i32);
        if length < STAMP {
            out.extend_from_slice(&self.0[..length]);
            return;
        }
        out.put_u64(writer);
        out.put_u64(sequence);
        out.extend_from_slice(&self.0[STAMP..length]);
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
        let value = |out: &mut BytesMut| filler.put(out, 100, 7, 9);
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
    fn short_values_have_their_length_and_no_stamp() {
        let filler = Filler::new(1, 100);
        for length in [0, 1, 15, 16, 100] {
            let out = written(|out| filler.put(out, length, u64::MAX, 1));
            assert_eq!(out.len(), 4 + length as usize);
            assert_eq!(out[..4], (length as i32).to_be_bytes());
        }
    }
}
