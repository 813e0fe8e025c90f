//! The length prefix around every client message: `int length`, then that many bytes.
//!
//! The limit is checked on the announced length, before a byte of the body is waited for or memory taken.
//! Source: `NIOServerCnxn.readLength`, `jute.maxbuffer`.

use bytes::{BufMut, BytesMut};

/// `jute.maxbuffer`'s default: the longest frame body, in bytes.
pub const DEFAULT_MAX_FRAME: usize = 0xf_ffff;

/// Bytes of the prefix.
pub const PREFIX: usize = 4;

/// A peer announced a frame that is negative or longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {announced} bytes was announced{}; the limit is {limit} (jute.maxbuffer)", as_text(*announced))]
pub struct TooLong {
    /// The length that the prefix claims.
    pub announced: i32,
    /// The longest length allowed.
    pub limit: usize,
}

/// Who sends a length that reads as text speaks another protocol.
fn as_text(announced: i32) -> String {
    let bytes = announced.to_be_bytes();
    match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) => format!(" (as text: {text:?})"),
        _ => String::new(),
    }
}

/// The body of the first frame in `input`, or `None` while it is incomplete. The frame takes
/// [`PREFIX`]` + body.len()` bytes of the input.
pub fn first(input: &[u8], limit: usize) -> Result<Option<&[u8]>, TooLong> {
    let Some(prefix) = input.first_chunk::<PREFIX>() else { return Ok(None) };
    let announced = i32::from_be_bytes(*prefix);
    if announced < 0 || announced as usize > limit {
        return Err(TooLong { announced, limit });
    }
    Ok(input[PREFIX..].get(..announced as usize))
}

/// Appends one frame whose body `write` produces.
pub fn put(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = (out.len() - start - PREFIX) as i32;
    out[start..start + PREFIX].copy_from_slice(&length.to_be_bytes());
}
