//! What a damaged log or a hostile leader may hold. What decodes must come back from its own encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zoometry_wire::{Record, TxnRecord};

fuzz_target!(|input: &[u8]| {
    let Ok(record) = TxnRecord::from_bytes(input) else { return };
    // Java's six-byte form of a supplementary character does not read back, in Java either.
    if format!("{record:?}").chars().any(|c| c > '\u{ffff}') {
        return;
    }
    let again = TxnRecord::from_bytes(&record.to_bytes()).expect("what was encoded decodes");
    // Digests behind errors and behind bare closeSessions are dropped when written.
    assert_eq!((again.header, again.txn), (record.header, record.txn));
});
