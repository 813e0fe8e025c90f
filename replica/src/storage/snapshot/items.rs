//! The item stream without a file around it: sessions, ACLs, znodes, the end mark.

use super::{END_MARK, SnapshotItem, SnapshotNode};
use crate::store::TXN_BYTES_MAX;
use bytes::{Buf, BytesMut};
use simd_adler32::Adler32;
use zoometry_wire::Acl;
use zoometry_wire::jute::{Malformed, Reader, Record, put_str, put_vector};

/// Longest path or data that is read. Far above any `jute.maxbuffer`; a length that is noise stops here, and
/// memory is only taken for bytes that are there.
pub(super) const FIELD_BYTES_MAX: usize = 1 << 30;
/// Longest entry of the ACL table. An ACL arrives in one request, so a real one is far shorter.
pub(super) const ACL_BYTES_MAX: usize = 2 * TXN_BYTES_MAX;
/// The fixed part of a znode: ACL index and StatPersisted.
const NODE_TAIL_BYTES: usize = 68;

/// Appends the sessions and the ACL table. `head` holds nothing else; order within the two does not matter.
pub fn encode_head(head: &[SnapshotItem], out: &mut BytesMut) {
    let count = |wanted: fn(&SnapshotItem) -> bool| head.iter().filter(|item| wanted(item)).count() as i32;
    let sessions = count(|item| matches!(item, SnapshotItem::Session(..)));
    let acls = count(|item| matches!(item, SnapshotItem::Acl(..)));
    assert_eq!((sessions + acls) as usize, head.len(), "a snapshot's head holds no znodes");
    sessions.encode(out);
    for item in head {
        if let SnapshotItem::Session(id, timeout_ms) = item {
            id.encode(out);
            timeout_ms.encode(out);
        }
    }
    acls.encode(out);
    for item in head {
        if let SnapshotItem::Acl(index, list) = item {
            index.encode(out);
            put_vector(out, list);
        }
    }
}

/// Appends a znode.
pub fn encode_node(node: &SnapshotNode, out: &mut BytesMut) {
    put_str(out, &node.path);
    node.data.encode(out);
    node.acl.encode(out);
    node.stat.encode(out);
}

/// Appends what stands behind the last znode.
pub fn encode_end(out: &mut BytesMut) {
    put_str(out, END_MARK);
}

/// Bytes in, in pieces of any size; items out.
pub struct ItemDecoder {
    buffer: BytesMut,
    stage: Stage,
    /// Bytes consumed.
    offset: u64,
    /// Over the bytes consumed.
    adler: Adler32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    SessionCount,
    Sessions { left: i32 },
    AclCount,
    Acls { left: i32 },
    Nodes,
    Done,
}

impl Default for ItemDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ItemDecoder {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), stage: Stage::SessionCount, offset: 0, adler: Adler32::new() }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item; `None` when the stream [`is_done`](Self::is_done) or more bytes are needed. The error's
    /// offset is that of the stream.
    pub fn next_item(&mut self) -> Result<Option<SnapshotItem>, Malformed> {
        loop {
            let next = match self.stage {
                Stage::SessionCount => match self.count("session count")? {
                    Some(left) => Stage::Sessions { left },
                    None => return Ok(None),
                },
                Stage::Sessions { left: 0 } => Stage::AclCount,
                Stage::Sessions { left } => {
                    if self.buffer.len() < 12 {
                        return Ok(None);
                    }
                    self.stage = Stage::Sessions { left: left - 1 };
                    let (id, timeout_ms) =
                        self.decode(12, |input| Ok((Record::decode(input)?, Record::decode(input)?)))?;
                    return Ok(Some(SnapshotItem::Session(id, timeout_ms)));
                }
                Stage::AclCount => match self.count("ACL count")? {
                    Some(left) => Stage::Acls { left },
                    None => return Ok(None),
                },
                Stage::Acls { left: 0 } => Stage::Nodes,
                Stage::Acls { left } => {
                    let Some(length) = self.measure(acl_bytes)? else { return Ok(None) };
                    self.stage = Stage::Acls { left: left - 1 };
                    let (index, list): (i64, Vec<Acl>) =
                        self.decode(length, |input| Ok((Record::decode(input)?, Record::decode(input)?)))?;
                    return Ok(Some(SnapshotItem::Acl(index, list.into())));
                }
                Stage::Nodes => {
                    if self.at_end_mark() {
                        self.consume(4 + END_MARK.len());
                        Stage::Done
                    } else {
                        let Some(length) = self.measure(node_bytes)? else { return Ok(None) };
                        return self.decode(length, read_node).map(|node| Some(SnapshotItem::Node(node)));
                    }
                }
                Stage::Done => return Ok(None),
            };
            self.stage = next;
        }
    }

    /// Whether the end mark has been read.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes behind the stream that were pushed with it.
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes `bytes` off the front of the [`rest`](Self::rest), which must hold them; they count for
    /// [`adler`](Self::adler).
    pub(super) fn consume(&mut self, bytes: usize) {
        self.adler.write(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        self.offset += bytes as u64;
    }

    /// Adler-32 of everything consumed.
    pub(super) fn adler(&self) -> u32 {
        self.adler.finish()
    }

    fn at_end_mark(&self) -> bool {
        self.buffer.len() > 4 && self.buffer[..5] == [0, 0, 0, 1, END_MARK.as_bytes()[0]]
    }

    fn count(&mut self, what: &'static str) -> Result<Option<i32>, Malformed> {
        if self.buffer.len() < 4 {
            return Ok(None);
        }
        let count = self.decode(4, i32::decode)?;
        // A null vector (−1) has no elements.
        if count < -1 { Err(self.malformed(what, 0)) } else { Ok(Some(count.max(0))) }
    }

    /// The next item's length, if all of it is here.
    fn measure(&self, length: fn(&mut Measure<'_>) -> Measured) -> Result<Option<usize>, Malformed> {
        let mut measure = Measure { bytes: &self.buffer, at: 0 };
        match length(&mut measure) {
            Ok(()) if measure.at <= self.buffer.len() => Ok(Some(measure.at)),
            Ok(()) | Err(Short::More) => Ok(None),
            Err(Short::Bad(what)) => Err(self.malformed(what, measure.at)),
        }
    }

    fn decode<T>(
        &mut self,
        length: usize,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let read = read(&mut Reader::new(&self.buffer[..length]));
        let value = read.map_err(|error| self.malformed(error.what, error.offset))?;
        self.consume(length);
        Ok(value)
    }

    fn malformed(&self, what: &'static str, within: usize) -> Malformed {
        Malformed { what, offset: self.offset as usize + within }
    }
}

fn read_node(input: &mut Reader<'_>) -> Result<SnapshotNode, Malformed> {
    let start = input.clone();
    let node = SnapshotNode {
        path: Record::decode(input)?,
        data: Record::decode(input)?,
        acl: Record::decode(input)?,
        stat: Record::decode(input)?,
    };
    if node.path.is_empty() || node.path.starts_with('/') { Ok(node) } else { Err(start.malformed("path")) }
}

enum Short {
    More,
    Bad(&'static str),
}

type Measured = Result<(), Short>;

/// Walks over lengths without looking at what they enclose. `at` may pass the end: then bytes are missing.
struct Measure<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Measure<'_> {
    fn int(&mut self) -> Result<i32, Short> {
        let there = self.bytes.get(self.at..self.at + 4).ok_or(Short::More)?;
        self.at += 4;
        Ok(i32::from_be_bytes(there.try_into().expect("four bytes")))
    }

    fn field(&mut self, what: &'static str) -> Measured {
        match self.int()? {
            -1 => Ok(()),
            length if length >= 0 && length as usize <= FIELD_BYTES_MAX => {
                self.at += length as usize;
                Ok(())
            }
            _ => Err(Short::Bad(what)),
        }
    }
}

fn node_bytes(measure: &mut Measure<'_>) -> Measured {
    measure.field("path length")?;
    measure.field("data length")?;
    measure.at += NODE_TAIL_BYTES;
    Ok(())
}

fn acl_bytes(measure: &mut Measure<'_>) -> Measured {
    measure.at += 8;
    let count = measure.int()?;
    if count < -1 {
        return Err(Short::Bad("ACL list count"));
    }
    for _ in 0..count {
        measure.at += 4;
        measure.field("ACL scheme length")?;
        measure.field("ACL id length")?;
        if measure.at > ACL_BYTES_MAX {
            return Err(Short::Bad("ACL list length"));
        }
    }
    Ok(())
}
