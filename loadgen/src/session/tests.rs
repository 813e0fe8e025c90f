//! The session without a server: frames are written by hand.

use super::*;
use zoometry_wire::records::WatcherEvent;

const SECOND_NS: u64 = 1_000_000_000;

fn connect_response(id: i64, timeout_ms: i32) -> BytesMut {
    let mut out = BytesMut::new();
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms,
        session_id: SessionId(id),
        password: Some(Bytes::from_static(&[7; PASSWORD])),
    };
    frame::put(&mut out, |out| response.encode_frame(ReadOnlyByte::Present(false), out));
    out
}

fn reply(xid: i32, zxid: i64, err: i32) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put(&mut out, |out| ReplyHeader { xid, zxid: Zxid(zxid), err }.encode(out));
    out
}

fn event(kind: EventType, path: &str) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put(&mut out, |out| {
        ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(-1), err: 0 }.encode(out);
        WatcherEvent { kind: kind as i32, state: 3, path: path.into() }.encode(out);
    });
    out
}

/// What came out, in words.
fn feed(session: &mut Session<u32>, input: &[u8]) -> Result<Vec<String>, ProtocolError> {
    let mut seen = Vec::new();
    let taken = session.receive(0, input, |event| {
        seen.push(match event {
            Event::Attached { again } => format!("attached again={again}"),
            Event::Expired => "expired".into(),
            Event::Reply(reply) => format!("reply {} err={}", reply.tag, reply.err),
            Event::Watch { kind, path, .. } => format!("watch {kind:?} {path}"),
            Event::Replaced => "replaced".into(),
            Event::WatchesSet => "watches set".into(),
        });
    })?;
    assert_eq!(taken, input.len(), "whole frames were given");
    Ok(seen)
}

fn attached() -> Session<u32> {
    let mut session = Session::new(30_000);
    let mut out = BytesMut::new();
    session.connect(0, &mut out);
    assert_eq!(out.len(), 4 + 45, "connect frame with password and readOnly byte");
    assert_eq!(feed(&mut session, &connect_response(0x77, 10_000)).unwrap(), ["attached again=false"]);
    session
}

fn ask(session: &mut Session<u32>, tag: u32) -> i32 {
    session.submit(OpCode::Ping, tag, &mut BytesMut::new(), |_| {})
}

#[test]
fn the_connect_frame_is_the_documented_one() {
    let mut session: Session<()> = Session::new(30_000);
    let mut out = BytesMut::new();
    session.connect(0, &mut out);
    let expected = [
        &[0, 0, 0, 0x2d, 0, 0, 0, 0][..],
        &[0; 8],
        &[0, 0, 0x75, 0x30],
        &[0; 8],
        &[0, 0, 0, 0x10],
        &[0; 16],
        &[0],
    ]
    .concat();
    assert_eq!(out, expected);
}

#[test]
fn replies_match_first_in_first_out() {
    let mut session = attached();
    assert_eq!(session.timeout_ms(), 10_000, "the negotiated timeout");
    let (a, b) = (ask(&mut session, 1), ask(&mut session, 2));
    assert_eq!((a, b), (1, 2));
    let both = [reply(a, 5, 0), reply(b, 5, -101)].concat();
    assert_eq!(feed(&mut session, &both).unwrap(), ["reply 1 err=0", "reply 2 err=-101"]);
    assert_eq!(session.outstanding(), 0);
    assert_eq!(session.broken(), &BrokenPromises::default());
}

#[test]
fn an_incomplete_frame_waits_for_the_rest() {
    let mut session = attached();
    let xid = ask(&mut session, 9);
    let whole = reply(xid, 1, 0);
    for cut in 0..whole.len() {
        let taken = session.receive(0, &whole[..cut], |_| panic!("nothing is complete")).unwrap();
        assert_eq!(taken, 0);
    }
    assert_eq!(feed(&mut session, &whole).unwrap(), ["reply 9 err=0"]);
}

#[test]
fn a_reply_out_of_turn_is_a_broken_promise() {
    let mut session = attached();
    let (a, b) = (ask(&mut session, 1), ask(&mut session, 2));
    let error = feed(&mut session, &reply(b, 5, 0)).unwrap_err();
    assert_eq!(error, ProtocolError::OutOfOrder { expected: Some(a), got: b });
    assert_eq!(session.broken().out_of_order, 1);
}

#[test]
fn a_zxid_that_goes_back_is_a_broken_promise() {
    let mut session = attached();
    let (a, b, c) = (ask(&mut session, 1), ask(&mut session, 2), ask(&mut session, 3));
    let all = [reply(a, 9, 0), reply(b, -1, -6), reply(c, 8, 0)].concat();
    feed(&mut session, &all).unwrap();
    assert_eq!(session.broken().zxid_went_back, 1, "the −1 of a refusal does not count, the 8 does");
    assert_eq!(session.last_zxid(), Zxid(9));
}

#[test]
fn reattaching_keeps_id_password_and_xids_and_hands_back_what_was_lost() {
    let mut session = attached();
    let a = ask(&mut session, 1);
    feed(&mut session, &reply(a, 3, 0)).unwrap();
    ask(&mut session, 2);
    ask(&mut session, 3);
    let mut lost = Vec::new();
    session.disconnected(|tag, _, _| lost.push(tag));
    assert_eq!(lost, [2, 3]);
    let mut out = BytesMut::new();
    session.connect(0, &mut out);
    let (request, _) = ConnectRequest::decode_frame(&out[4..]).unwrap();
    assert_eq!(request.session_id, SessionId(0x77));
    assert_eq!(request.password.as_deref(), Some(&[7; PASSWORD][..]));
    assert_eq!(request.last_zxid_seen, Zxid(3));
    assert_eq!(feed(&mut session, &connect_response(0x77, 10_000)).unwrap(), ["attached again=true"]);
    assert_eq!(ask(&mut session, 4), 4, "xids go on");
}

#[test]
fn expiry_is_reported_and_the_next_connect_begins_anew() {
    let mut session = attached();
    session.disconnected(|_, _, _| {});
    session.connect(0, &mut BytesMut::new());
    assert_eq!(feed(&mut session, &connect_response(0, 0)).unwrap(), ["expired"]);
    assert_eq!(session.state(), State::Expired);
    let mut out = BytesMut::new();
    session.connect(0, &mut out);
    let (request, _) = ConnectRequest::decode_frame(&out[4..]).unwrap();
    assert_eq!((request.session_id, request.last_zxid_seen), (SessionId(0), Zxid(0)));
}

#[test]
fn pings_fall_due_at_a_third_of_the_timeout_and_silence_at_two_thirds() {
    let mut session = attached();
    let mut out = BytesMut::new();
    assert_eq!(session.tick(3 * SECOND_NS, &mut out), Tick::Quiet);
    assert_eq!(session.tick(4 * SECOND_NS, &mut out), Tick::Ping);
    assert_eq!(&out[..], [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
    assert_eq!(session.tick(5 * SECOND_NS, &mut out), Tick::Quiet);
    assert_eq!(session.tick(7 * SECOND_NS, &mut out), Tick::Silent);
}

#[test]
fn watches_that_have_not_fired_are_set_again() {
    let mut session = attached();
    let mut out = BytesMut::new();
    let wants = [
        (OpCode::GetData, WatchKind::Data, "/a", 0),
        (OpCode::GetData, WatchKind::Data, "/fired", 0),
        (OpCode::Exists, WatchKind::Exist, "/missing", -101),
        (OpCode::GetChildren, WatchKind::Child, "/refused", -102),
    ];
    for (op, kind, path, err) in wants {
        let watch = Some(WatchChange::Sets(kind, path.into()));
        let xid = session.submit_watching(op, 0, watch, &mut out, |_| {});
        feed(&mut session, &reply(xid, 4, err)).unwrap();
    }
    assert_eq!(
        feed(&mut session, &event(EventType::NodeDataChanged, "/fired")).unwrap(),
        ["watch NodeDataChanged /fired"]
    );
    session.disconnected(|_, _, _| {});
    out.clear();
    session.set_watches(&mut out);
    assert_eq!(&out[4..12], [0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 101], "xid −8, setWatches");
    let Request::SetWatches(sent) = Request::decode(OpCode::SetWatches, &out[12..]).unwrap() else {
        panic!("setWatches")
    };
    assert_eq!(sent.relative_zxid, Zxid(4));
    assert_eq!(sent.data, ["/a"]);
    assert_eq!(sent.exist, ["/missing"]);
    assert!(sent.child.is_empty(), "the server refused that one");
}

#[test]
fn persistent_watches_need_the_second_form() {
    let mut session = attached();
    let mut out = BytesMut::new();
    let watch = Some(WatchChange::Sets(WatchKind::Recursive, "/a".to_string()));
    let xid = session.submit_watching(OpCode::AddWatch, 0, watch, &mut out, |_| {});
    feed(&mut session, &reply(xid, 4, 0)).unwrap();
    out.clear();
    session.set_watches(&mut out);
    assert_eq!(&out[8..12], [0, 0, 0, 105]);
}

/// What was taken away must not come back with the next connection, whether the removal was answered or not.
#[test]
fn watches_that_were_taken_away_are_not_set_again() {
    for answered in [true, false] {
        let mut session = attached();
        let mut out = BytesMut::new();
        for path in ["/a", "/b"] {
            let watch = Some(WatchChange::Sets(WatchKind::Persistent, path.into()));
            let xid = session.submit_watching(OpCode::AddWatch, 0, watch, &mut out, |_| {});
            feed(&mut session, &reply(xid, 4, 0)).unwrap();
        }
        let removal = Some(WatchChange::Removes("/a".into()));
        let xid = session.submit_watching(OpCode::RemoveWatches, 0, removal, &mut out, |_| {});
        if answered {
            feed(&mut session, &reply(xid, 4, 0)).unwrap();
        }
        session.disconnected(|_, _, _| {});
        out.clear();
        session.set_watches(&mut out);
        let Request::SetWatches2(sent) = Request::decode(OpCode::SetWatches2, &out[12..]).unwrap() else {
            panic!("setWatches2")
        };
        assert_eq!(sent.persistent, ["/b"], "answered: {answered}");
    }
}

#[test]
fn a_session_that_comes_back_as_another_is_a_broken_promise() {
    let mut session = attached();
    let watch = Some(WatchChange::Sets(WatchKind::Data, "/a".into()));
    let xid = session.submit_watching(OpCode::GetData, 0, watch, &mut BytesMut::new(), |_| {});
    feed(&mut session, &reply(xid, 9, 0)).unwrap();
    session.disconnected(|_, _, _| {});
    session.connect(0, &mut BytesMut::new());
    let seen = feed(&mut session, &connect_response(0x78, 10_000)).unwrap();
    assert_eq!(seen, ["replaced", "attached again=false"]);
    assert_eq!((session.broken().replaced, session.id()), (1, SessionId(0x78)));
    assert_eq!(session.last_zxid(), Zxid(0), "the new session has seen nothing");
    let mut out = BytesMut::new();
    session.set_watches(&mut out);
    assert!(out.is_empty(), "its watches were the other's");
}

#[test]
fn hostile_bytes_end_the_connection() {
    for bytes in [&[0x7f, 0xff, 0xff, 0xff, 0][..], &[0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 2, 1, 2]] {
        let mut session = attached();
        assert!(session.receive(0, bytes, |_| {}).is_err(), "{bytes:?}");
    }
}
