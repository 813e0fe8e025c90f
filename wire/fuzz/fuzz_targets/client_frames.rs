//! What a hostile client may send: a frame, a connect request, a header, any body. What decodes must come
//! back from its own encoding.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use zoometry_wire::records::{ConnectRequest, RequestHeader};
use zoometry_wire::{OpCode, Record, Request, frame};

fuzz_target!(|input: &[u8]| {
    let _ = frame::first(input, frame::DEFAULT_MAX_FRAME);
    let _ = ConnectRequest::decode_frame(input);
    let Ok(header) = RequestHeader::from_bytes(input) else { return };
    let Some(op) = OpCode::from_code(header.op) else { return };
    let Ok(request) = Request::decode(op, &input[8..]) else { return };
    // Java's six-byte form of a supplementary character does not read back, in Java either.
    if format!("{request:?}").chars().any(|c| c > '\u{ffff}') {
        return;
    }
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes);
    assert_eq!(Request::decode(op, &bytes).as_ref(), Ok(&request));
});
