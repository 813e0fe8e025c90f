//! Jute, ZooKeeper's encoding: big-endian, no tags, no field counts, fields in schema order.
//!
//! Encoding cannot fail. Decoding fails with [`Malformed`] and nothing else; lengths and counts are
//! checked against the bytes that are really there before memory is taken, so a hostile length costs
//! nothing. Source: `org/apache/jute/BinaryInputArchive.java`, `BinaryOutputArchive.java`.

use bytes::{BufMut, Bytes, BytesMut};

/// The bytes are not the record that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {offset}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// Where in the input, in bytes from its start.
    pub offset: usize,
}

/// A value with a place in ZooKeeper's schema.
pub trait Record: Sized {
    /// Appends the value to `out`.
    fn encode(&self, out: &mut BytesMut);
    /// Reads one value, leaving the reader behind it.
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// The value's bytes alone.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Reads a value from the start of `bytes`; bytes behind it are ignored, as Apache's server does.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// A cursor over bytes that came from outside.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The error for this place.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, offset: self.at }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        if self.remaining() < n {
            return Err(self.malformed(what));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        // `take` returned exactly N bytes, so the conversion cannot fail.
        self.take(N, what).map(|bytes| bytes.try_into().expect("N bytes"))
    }

    /// A length-prefixed run of bytes; `None` is the null buffer (length −1).
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let start = self.clone();
        match i32::decode(self)? {
            -1 => Ok(None),
            n if n >= 0 => self.take(n as usize, "buffer").map(Some),
            _ => Err(start.malformed("buffer length")),
        }
    }

    /// A string without a copy; null reads as empty; bytes that are no UTF-8 are an error here.
    /// Use [`Record::decode`] for `String` where Apache's lossy reading matters.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let start = self.clone();
        let bytes = self.buffer()?.unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| start.malformed("string"))
    }
}

impl Record for i32 {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(*self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        input.array("int").map(i32::from_be_bytes)
    }
}

impl Record for i64 {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i64(*self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        input.array("long").map(i64::from_be_bytes)
    }
}

impl Record for u8 {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(*self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        input.array::<1>("byte").map(|[byte]| byte)
    }
}

/// Written as 0 or 1; any non-zero byte reads as true.
impl Record for bool {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        u8::decode(input).map(|byte| byte != 0)
    }
}

/// Null and empty are different values and both survive a round trip.
impl Record for Option<Bytes> {
    fn encode(&self, out: &mut BytesMut) {
        put_buffer(out, self.as_deref());
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        // A copy, so that a small value never pins the large receive buffer it arrived in.
        Ok(input.buffer()?.map(Bytes::copy_from_slice))
    }
}

/// A string that may be null. The writer encodes each UTF-16 unit on its own (so a supplementary character
/// takes six bytes, as Java's does); the reader takes UTF-8 and replaces what is not.
impl Record for Option<String> {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            None => out.put_i32(-1),
            Some(text) => put_str(out, text),
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(input.buffer()?.map(text))
    }
}

/// Where ZooKeeper does not tell null from empty, we do not either: null reads as the empty string.
impl Record for String {
    fn encode(&self, out: &mut BytesMut) {
        put_str(out, self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(input.buffer()?.map(text).unwrap_or_default())
    }
}

/// Text as Apache reads it: what is no UTF-8 becomes U+FFFD. Checking first is much faster than replacing.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A null vector (count −1) reads as empty. Other negative counts are refused.
impl<T: Record> Record for Vec<T> {
    fn encode(&self, out: &mut BytesMut) {
        put_vector(out, self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = input.clone();
        let count = i32::decode(input)?;
        if count < -1 || count > input.remaining() as i64 as i32 {
            // Every element of every vector in the schema takes at least one byte.
            return Err(start.malformed("vector count"));
        }
        // The count is only a claim: what is reserved stays in proportion to the bytes that are there.
        let claimed = count.max(0) as usize;
        let affordable = input.remaining() / std::mem::size_of::<T>().max(1);
        let mut items = Vec::with_capacity(claimed.min(affordable));
        for _ in 0..claimed {
            items.push(T::decode(input)?);
        }
        Ok(items)
    }
}

/// Appends a vector.
pub fn put_vector<T: Record>(out: &mut BytesMut, items: &[T]) {
    out.put_i32(items.len() as i32);
    for item in items {
        item.encode(out);
    }
}

/// Appends a buffer, which may be null.
pub fn put_buffer(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => out.put_i32(-1),
        Some(bytes) => put_slice(out, bytes),
    }
}

/// Appends a length-prefixed run of bytes.
pub fn put_slice(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.extend_from_slice(bytes);
}

/// Appends a string as Java's writer does: each UTF-16 unit on its own, one to three bytes.
pub fn put_str(out: &mut BytesMut, text: &str) {
    // The first byte of a supplementary character is F0 or above, no other byte is. Without a way out of the
    // loop it is a few vector instructions.
    if text.bytes().fold(0, u8::max) < 0xf0 {
        return put_slice(out, text.as_bytes());
    }
    let length: usize = text.chars().map(|c| if c as u32 > 0xffff { 6 } else { c.len_utf8() }).sum();
    out.put_i32(length as i32);
    let mut units = [0u16; 2];
    for c in text.chars() {
        if c as u32 <= 0xffff {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            let unit = *unit;
            out.put_u8(0xe0 | (unit >> 12) as u8);
            out.put_u8(0x80 | ((unit >> 6) & 0x3f) as u8);
            out.put_u8(0x80 | (unit & 0x3f) as u8);
        }
    }
}

/// How many bytes [`put_str`] appends.
pub fn str_len(text: &str) -> usize {
    // A supplementary character, the only kind whose first byte is F0 or above, takes six bytes instead of four.
    4 + text.len() + 2 * text.bytes().filter(|byte| *byte >= 0xf0).count()
}

/// How many bytes [`put_buffer`] appends.
pub fn buffer_len(bytes: Option<&[u8]>) -> usize {
    4 + bytes.map_or(0, <[u8]>::len)
}

/// Declares a record: a struct whose encoding is its fields in the order written.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl $crate::jute::Record for $name {
            fn encode(&self, out: &mut bytes::BytesMut) {
                $($crate::jute::Record::encode(&self.$field, out);)*
            }
            fn decode(input: &mut $crate::jute::Reader<'_>) -> Result<Self, $crate::jute::Malformed> {
                Ok(Self { $($field: $crate::jute::Record::decode(input)?),* })
            }
        }
    };
}
