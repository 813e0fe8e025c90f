//! What a hostile server may send. The first byte chooses the operation that was asked.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use zoometry_wire::records::{ConnectResponse, WatcherEvent};
use zoometry_wire::{OpCode, Record, Response};

fuzz_target!(|input: &[u8]| {
    let _ = ConnectResponse::decode_frame(input);
    let _ = WatcherEvent::from_bytes(input);
    let Some((choice, body)) = input.split_first() else { return };
    let op = OpCode::ALL[*choice as usize % OpCode::ALL.len()];
    let Ok(response) = Response::decode(op, body) else { return };
    // Java's six-byte form of a supplementary character does not read back, in Java either.
    if format!("{response:?}").chars().any(|c| c > '\u{ffff}') {
        return;
    }
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes);
    assert_eq!(Response::decode(op, &bytes).as_ref(), Ok(&response));
});
