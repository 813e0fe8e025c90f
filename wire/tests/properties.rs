//! Properties of the encoding, over generated values and arbitrary bytes.
//!
//! decode ∘ encode is the identity; arbitrary bytes never panic and never make the decoder take more memory
//! than a small multiple of the input; a frame cut short is an error or a smaller value, never a wrong one.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use zoometry_wire::records::{
    AuthPacket, ClientInfo, ConnectRequest, ConnectResponse, ReadOnlyByte, ReplyHeader, WatcherEvent,
};
use zoometry_wire::request::{
    CreateRequest, CreateTtlRequest, PathMode, PathVersion, PathWatch, ReconfigRequest, SetAclRequest,
    SetDataRequest, SetWatches,
};
use zoometry_wire::txn::{
    CreateContainerTxn, CreateTtlTxn, CreateTxn, SetAclTxn, SetDataTxn, TxnDigest, TxnHeader,
};
use zoometry_wire::{
    Acl, Id, MultiResult, OpCode, Record, Request, Response, SessionId, Stat, Txn, TxnRecord, Zxid, frame,
};

// ---- a counting allocator

/// Counts what the current thread holds above a starting point, so that tests may run side by side.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is going away has no counters any more; what it frees then is nobody's.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held at one time while `work` runs, above what was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// Memory that decoding `n` bytes may take at its peak. The worst honest input is a vector whose elements are
/// one empty string each: 4 bytes on the wire, a `String` of 24 in memory, doubled while the vector grows. A
/// multi of empty deletes is of the same order.
fn allowance(n: usize) -> usize {
    1024 + 64 * n
}

// ---- generated values

/// Any text that UTF-16 units of the basic plane can spell; what Java writes beyond it does not read back.
fn text() -> impl Strategy<Value = String> {
    let bmp = proptest::char::ranges(vec!['\0'..='\u{d7ff}', '\u{e000}'..='\u{ffff}'].into());
    prop_oneof![
        "/[a-z]{0,8}(/[a-z]{1,4}){0,3}",
        vec(bmp, 0..12).prop_map(|chars| chars.into_iter().collect::<String>()),
    ]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    let entry = (any::<i32>(), text(), text());
    vec(entry.prop_map(|(perms, scheme, id)| Acl { perms, id: Id { scheme, id } }), 0..4)
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(longs, ints)| Stat {
        czxid: Zxid(longs[0]),
        mzxid: Zxid(longs[1]),
        ctime: longs[2],
        mtime: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: SessionId(longs[4]),
        data_length: ints[3],
        num_children: ints[4],
        pzxid: Zxid(longs[5]),
    })
}

fn create() -> impl Strategy<Value = CreateRequest> {
    (text(), data(), acl(), any::<i32>()).prop_map(|(path, data, acl, flags)| CreateRequest {
        path,
        data,
        acl,
        flags,
    })
}

fn path_version() -> impl Strategy<Value = PathVersion> {
    (text(), any::<i32>()).prop_map(|(path, version)| PathVersion { path, version })
}

fn path_watch() -> impl Strategy<Value = PathWatch> {
    (text(), any::<bool>()).prop_map(|(path, watch)| PathWatch { path, watch })
}

fn path_mode() -> impl Strategy<Value = PathMode> {
    (text(), any::<i32>()).prop_map(|(path, mode)| PathMode { path, mode })
}

fn create_ttl() -> impl Strategy<Value = CreateTtlRequest> {
    (create(), any::<i64>()).prop_map(|(CreateRequest { path, data, acl, flags }, ttl_ms)| CreateTtlRequest {
        path,
        data,
        acl,
        flags,
        ttl_ms,
    })
}

fn set_data() -> impl Strategy<Value = SetDataRequest> {
    (text(), data(), any::<i32>()).prop_map(|(path, data, version)| SetDataRequest { path, data, version })
}

fn in_multi() -> impl Strategy<Value = Request> {
    prop_oneof![
        create().prop_map(Request::Create),
        create().prop_map(Request::Create2),
        create().prop_map(Request::CreateContainer),
        create_ttl().prop_map(Request::CreateTtl),
        path_version().prop_map(Request::Delete),
        path_version().prop_map(Request::Check),
        set_data().prop_map(Request::SetData),
    ]
}

fn set_watches() -> impl Strategy<Value = SetWatches> {
    let list = || vec(text(), 0..3);
    (any::<i64>(), list(), list(), list(), list(), list()).prop_map(
        |(zxid, data, exist, child, persistent, recursive)| SetWatches {
            relative_zxid: Zxid(zxid),
            data,
            exist,
            child,
            persistent,
            recursive,
        },
    )
}

fn reconfig() -> impl Strategy<Value = ReconfigRequest> {
    (option::of(text()), option::of(text()), option::of(text()), any::<i64>()).prop_map(
        |(joining, leaving, members, current_config)| ReconfigRequest {
            joining,
            leaving,
            members,
            current_config,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let reads = prop_oneof![
        path_watch().prop_map(Request::Exists),
        path_watch().prop_map(Request::GetData),
        path_watch().prop_map(Request::GetChildren),
        path_watch().prop_map(Request::GetChildren2),
        text().prop_map(Request::Sync),
        text().prop_map(Request::GetAcl),
        text().prop_map(Request::GetAllChildrenNumber),
        option::of(text()).prop_map(Request::GetEphemerals),
        vec(
            prop_oneof![path_watch().prop_map(Request::GetData), path_watch().prop_map(Request::GetChildren)],
            0..4
        )
        .prop_map(Request::MultiRead),
    ];
    let watches = prop_oneof![
        path_mode().prop_map(Request::AddWatch),
        path_mode().prop_map(Request::CheckWatches),
        path_mode().prop_map(Request::RemoveWatches),
        set_watches().prop_map(Request::SetWatches2),
        set_watches().prop_map(|mut lists| {
            // setWatches has no persistent lists on the wire.
            (lists.persistent, lists.recursive) = Default::default();
            Request::SetWatches(lists)
        }),
    ];
    let others = prop_oneof![
        Just(Request::WhoAmI),
        Just(Request::Ping),
        Just(Request::CloseSession),
        any::<i32>().prop_map(Request::CreateSession),
        (any::<i32>(), text(), data()).prop_map(|(kind, scheme, auth)| Request::Auth(AuthPacket {
            kind,
            scheme,
            auth
        })),
        data().prop_map(Request::Sasl),
        reconfig().prop_map(Request::Reconfig),
        text().prop_map(Request::DeleteContainer),
    ];
    let set_acl = (text(), acl(), any::<i32>())
        .prop_map(|(path, acl, version)| Request::SetAcl(SetAclRequest { path, acl, version }));
    prop_oneof![in_multi(), vec(in_multi(), 0..5).prop_map(Request::Multi), set_acl, reads, watches, others]
}

fn multi_result() -> impl Strategy<Value = MultiResult> {
    prop_oneof![
        text().prop_map(MultiResult::Create),
        (text(), stat()).prop_map(|(path, stat)| MultiResult::Create2(path, stat)),
        Just(MultiResult::Delete),
        Just(MultiResult::Check),
        stat().prop_map(MultiResult::SetData),
        (data(), stat()).prop_map(|(data, stat)| MultiResult::GetData(data, stat)),
        vec(text(), 0..4).prop_map(MultiResult::GetChildren),
        any::<i32>().prop_map(MultiResult::Error),
    ]
}

/// A response and an operation that is answered so.
fn response() -> impl Strategy<Value = (OpCode, Response)> {
    prop_oneof![
        Just((OpCode::Delete, Response::Empty)),
        text().prop_map(|path| (OpCode::Create, Response::Path(path))),
        (text(), stat()).prop_map(|(path, stat)| (OpCode::Create2, Response::Created(path, stat))),
        stat().prop_map(|stat| (OpCode::Exists, Response::Stat(stat))),
        (data(), stat()).prop_map(|(data, stat)| (OpCode::GetData, Response::Data(data, stat))),
        vec(text(), 0..5).prop_map(|names| (OpCode::GetChildren, Response::Children(names))),
        (vec(text(), 0..5), stat())
            .prop_map(|(names, stat)| (OpCode::GetChildren2, Response::Children2(names, stat))),
        (acl(), stat()).prop_map(|(acl, stat)| (OpCode::GetAcl, Response::Acl(acl, stat))),
        vec(multi_result(), 0..5).prop_map(|results| (OpCode::Multi, Response::Multi(results))),
        any::<i32>().prop_map(|n| (OpCode::GetAllChildrenNumber, Response::Count(n))),
        vec(text(), 0..5).prop_map(|paths| (OpCode::GetEphemerals, Response::Ephemerals(paths))),
        vec((text(), text()), 0..4).prop_map(|who| {
            let who = who.into_iter().map(|(scheme, user)| ClientInfo { scheme, user }).collect();
            (OpCode::WhoAmI, Response::WhoAmI(who))
        }),
        any::<i32>().prop_map(|code| (OpCode::AddWatch, Response::Error(code))),
        data().prop_map(|token| (OpCode::Sasl, Response::Token(token))),
    ]
}

fn create_txn() -> impl Strategy<Value = CreateTxn> {
    (text(), data(), acl(), any::<bool>(), any::<i32>()).prop_map(
        |(path, data, acl, ephemeral, parent_cversion)| CreateTxn {
            path,
            data,
            acl,
            ephemeral,
            parent_cversion,
        },
    )
}

/// Transactions that may stand inside a multi, with their types.
fn sub_txn() -> impl Strategy<Value = (OpCode, Txn)> {
    prop_oneof![
        create_txn().prop_map(|txn| (OpCode::Create, Txn::Create(txn))),
        create_txn().prop_map(|txn| (OpCode::Create2, Txn::Create(txn))),
        (create_txn(), any::<i64>()).prop_map(|(txn, ttl_ms)| {
            let CreateTxn { path, data, acl, parent_cversion, .. } = txn;
            (OpCode::CreateTtl, Txn::CreateTtl(CreateTtlTxn { path, data, acl, parent_cversion, ttl_ms }))
        }),
        create_txn().prop_map(|CreateTxn { path, data, acl, parent_cversion, .. }| {
            let txn = CreateContainerTxn { path, data, acl, parent_cversion };
            (OpCode::CreateContainer, Txn::CreateContainer(txn))
        }),
        text().prop_map(|path| (OpCode::Delete, Txn::Delete(path))),
        (text(), data(), any::<i32>()).prop_map(|(path, data, version)| {
            (OpCode::SetData, Txn::SetData(SetDataTxn { path, data, version }))
        }),
        (text(), any::<i32>()).prop_map(|(path, version)| (OpCode::Check, Txn::Check(path, version))),
        any::<i32>().prop_map(|code| (OpCode::Error, Txn::Error(code))),
    ]
}

fn txn() -> impl Strategy<Value = (OpCode, Txn)> {
    prop_oneof![
        sub_txn(),
        vec(sub_txn(), 0..4).prop_map(|entries| (OpCode::Multi, Txn::Multi(entries))),
        (text(), acl(), any::<i32>()).prop_map(|(path, acl, version)| {
            (OpCode::SetAcl, Txn::SetAcl(SetAclTxn { path, acl, version }))
        }),
        text().prop_map(|path| (OpCode::DeleteContainer, Txn::Delete(path))),
        any::<i32>().prop_map(|timeout| (OpCode::CreateSession, Txn::CreateSession(timeout))),
        vec(text(), 0..4).prop_map(|paths| (OpCode::CloseSession, Txn::CloseSession(Some(paths)))),
        Just((OpCode::CloseSession, Txn::CloseSession(None))),
    ]
}

fn txn_record() -> impl Strategy<Value = TxnRecord> {
    let head = (any::<i64>(), any::<i32>(), any::<i64>(), any::<i64>());
    let digest = option::of((any::<i32>(), any::<i64>()));
    (head, txn(), digest).prop_map(|((session, cxid, zxid, time_ms), (kind, txn), digest)| TxnRecord {
        header: TxnHeader { session: SessionId(session), cxid, zxid: Zxid(zxid), time_ms, kind: kind.code() },
        // These two carry none, by the record's own rule.
        digest: match txn {
            Txn::Error(_) | Txn::CloseSession(None) => None,
            _ => digest.map(|(version, tree)| TxnDigest { version, tree }),
        },
        txn,
    })
}

fn bytes_of(request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    request.encode(&mut out);
    out
}

fn response_bytes(response: &Response) -> BytesMut {
    let mut out = BytesMut::new();
    response.encode(&mut out);
    out
}

// ---- the properties

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_back(request in request()) {
        let bytes = bytes_of(&request);
        prop_assert_eq!(Request::decode(request.op(), &bytes).unwrap(), request);
    }

    #[test]
    fn responses_come_back((op, response) in response()) {
        prop_assert_eq!(Response::decode(op, &response_bytes(&response)).unwrap(), response);
    }

    #[test]
    fn transactions_come_back(record in txn_record()) {
        let bytes = record.to_bytes();
        let digest = if record.digest.is_some() { 12 } else { 0 };
        prop_assert_eq!(bytes.len(), TxnRecord::REST_BYTES - 12 + record.txn.encoded_len() + digest);
        prop_assert_eq!(TxnRecord::from_bytes(&bytes).unwrap(), record);
    }

    #[test]
    fn connect_frames_come_back(
        (zxid, timeout_ms, session) in any::<(i64, i32, i64)>(),
        password in data(),
        read_only in option::of(any::<bool>()),
    ) {
        let byte = read_only.map_or(ReadOnlyByte::Absent, ReadOnlyByte::Present);
        let session_id = SessionId(session);
        let request = ConnectRequest {
            protocol_version: 0, last_zxid_seen: Zxid(zxid), timeout_ms, session_id, password: password.clone(),
        };
        let mut out = BytesMut::new();
        request.encode_frame(byte, &mut out);
        prop_assert_eq!(ConnectRequest::decode_frame(&out).unwrap(), (request, byte));
        let response = ConnectResponse { protocol_version: 0, timeout_ms, session_id, password };
        let mut out = BytesMut::new();
        response.encode_frame(byte, &mut out);
        prop_assert_eq!(ConnectResponse::decode_frame(&out).unwrap(), (response, byte));
    }

    /// Text of any kind is written as Java writes it: each UTF-16 unit on its own.
    #[test]
    fn strings_are_written_as_java_does(text in any::<String>()) {
        let mut expected = Vec::new();
        for unit in text.encode_utf16() {
            match unit {
                0..0x80 => expected.push(unit as u8),
                0x80..0x800 => expected.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
                _ => expected.extend([
                    0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8,
                ]),
            }
        }
        let bytes = text.to_bytes();
        prop_assert_eq!(&bytes[..4], (expected.len() as i32).to_be_bytes());
        prop_assert_eq!(&bytes[4..], expected);
        // It reads back unless it has supplementary characters, and then it still reads.
        let back = String::from_bytes(&bytes).unwrap();
        prop_assert!(back == text || text.chars().any(|c| c as u32 > 0xffff));
    }

    /// Bytes from outside: no panic, and memory in proportion.
    #[test]
    fn arbitrary_bytes_cost_little(bytes in vec(any::<u8>(), 0..600)) {
        check_cost(&bytes)?;
    }

    /// The same behind a plausible start, which gets further into the decoders.
    #[test]
    fn damaged_records_cost_little(
        request in request(), at in any::<prop::sample::Index>(), with in any::<[u8; 4]>(),
    ) {
        let mut bytes = bytes_of(&request).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
        check_cost(&bytes)?;
    }

    #[test]
    fn damaged_transactions_cost_little(
        record in txn_record(), at in any::<prop::sample::Index>(), with in any::<[u8; 4]>(),
    ) {
        let mut bytes = record.to_bytes().to_vec();
        let at = at.index(bytes.len());
        let end = (at + 4).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        check_cost(&bytes)?;
    }

    /// A request cut short is refused: no record's proper prefix is a record of the same kind.
    #[test]
    fn cut_requests_are_refused(request in request(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&request);
        if bytes.is_empty() {
            return Ok(());
        }
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(Request::decode(request.op(), cut).is_err(), "{:?} of {} bytes", request, cut.len());
    }

    #[test]
    fn cut_responses_are_refused((op, response) in response(), at in any::<prop::sample::Index>()) {
        let bytes = response_bytes(&response);
        if bytes.is_empty() {
            return Ok(());
        }
        prop_assert!(Response::decode(op, &bytes[..at.index(bytes.len())]).is_err());
    }

    /// A transaction cut short is an error, or the value that its writer would have written without a digest
    /// (or, for an old create, without the parent's cversion): it encodes to what was read, no more.
    #[test]
    fn cut_transactions_are_errors_or_shorter(record in txn_record(), at in any::<prop::sample::Index>()) {
        let bytes = record.to_bytes();
        let cut = &bytes[..at.index(bytes.len())];
        if let Ok(shorter) = TxnRecord::from_bytes(cut) {
            prop_assert_eq!(shorter.header, record.header);
            prop_assert!(shorter.digest.is_none());
            let old_create = matches!(&shorter.txn, Txn::Create(txn) if txn.parent_cversion == -1);
            let old_close = matches!(shorter.txn, Txn::CloseSession(None));
            prop_assert!(shorter.txn == record.txn || old_create || old_close, "{:?}", shorter);
        }
    }

    /// A stream of frames comes apart at the frames, wherever the socket cut it.
    #[test]
    fn frames_come_apart(bodies in vec(vec(any::<u8>(), 0..30), 0..5), cut in any::<prop::sample::Index>()) {
        let mut stream = BytesMut::new();
        for body in &bodies {
            frame::put(&mut stream, |out| out.extend_from_slice(body));
        }
        let mut rest = &stream[..];
        for body in &bodies {
            let first = frame::first(rest, 30).unwrap().expect("a whole frame");
            prop_assert_eq!(first, &body[..]);
            rest = &rest[frame::PREFIX + first.len()..];
        }
        prop_assert!(rest.is_empty());
        if let Some(first) = bodies.first() {
            let partial = &stream[..cut.index(first.len() + frame::PREFIX)];
            prop_assert_eq!(frame::first(partial, 30).unwrap(), None);
        }
    }
}

fn check_cost(bytes: &[u8]) -> Result<(), TestCaseError> {
    let limit = allowance(bytes.len());
    let within = |what: &str, peak: usize| {
        prop_assert!(peak <= limit, "{what}: {peak} bytes held for {} of input", bytes.len());
        Ok(())
    };
    for op in OpCode::ALL {
        within(op.name(), peak_of(|| Request::decode(*op, bytes).is_ok()).1)?;
        within(op.name(), peak_of(|| Response::decode(*op, bytes).is_ok()).1)?;
    }
    within("txn", peak_of(|| TxnRecord::from_bytes(bytes).is_ok()).1)?;
    within("connect", peak_of(|| ConnectRequest::decode_frame(bytes).is_ok()).1)?;
    within("connect response", peak_of(|| ConnectResponse::decode_frame(bytes).is_ok()).1)?;
    within("event", peak_of(|| WatcherEvent::from_bytes(bytes).is_ok()).1)?;
    within("reply header", peak_of(|| ReplyHeader::from_bytes(bytes).is_ok()).1)?;
    within("frame", peak_of(|| frame::first(bytes, frame::DEFAULT_MAX_FRAME).is_ok()).1)
}

/// The worst honest inputs of a whole megabyte, and the classic hostile ones.
#[test]
fn large_inputs_cost_in_proportion() {
    let (kept, peak) = peak_of(|| vec![1u8; 1 << 20]);
    assert!(peak >= kept.len(), "the allocator does not count");
    let mut empty_names = BytesMut::new();
    vec![String::new(); 250_000].encode(&mut empty_names);
    let mut deletes = BytesMut::new();
    Request::Multi(vec![Request::Delete(PathVersion::default()); 50_000]).encode(&mut deletes);
    let mut results = BytesMut::new();
    Response::Multi(vec![MultiResult::Delete; 100_000]).encode(&mut results);
    for (what, bytes) in [("names", &empty_names), ("deletes", &deletes), ("results", &results)] {
        check_cost(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    for claimed in [i32::MAX, 1 << 30, 1 << 20, -2, i32::MIN] {
        let mut hostile = claimed.to_be_bytes().to_vec();
        hostile.extend([0; 60]);
        check_cost(&hostile).unwrap();
        let announced = frame::first(&hostile, frame::DEFAULT_MAX_FRAME);
        assert!(announced.is_err(), "a frame of {claimed} bytes must be refused at once");
    }
}
