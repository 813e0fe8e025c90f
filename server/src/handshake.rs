//! The first bytes of a connection: a four-letter word, or a session to open or to continue.
//! Source: `ZooKeeperServer.processConnectRequest`, `finishSessionInit`; reference §2.1, §2.2.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use zoometry_replica::store::session;
use zoometry_wire::records::{ConnectRequest, ConnectResponse, ReadOnlyByte};
use zoometry_wire::{SessionId, frame};

use crate::clock;
use crate::config::Ensemble;
use crate::conn::{Conn, Phase};
use crate::node::{FromClient, NodeEvent};
use crate::shared::Shared;
use crate::view::Mode;
use crate::words::{self, Word};

/// Handles what has arrived on a connection without a session. An error is the sentence for the log with
/// which the connection is closed.
pub fn first_bytes(shared: &Shared, conn: &Arc<Conn>, input: &mut BytesMut) -> Result<(), String> {
    if let Some(word) = input.first_chunk::<4>().and_then(|first| Word::recognise(*first)) {
        answer_word(shared, conn, word, &input[4..]);
        return Ok(());
    }
    let body = match frame::first(input, shared.config.requests.max_frame_bytes) {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(()),
        Err(error) => return Err(format!("{error}; this is no ZooKeeper client")),
    };
    let consumed = frame::PREFIX + body.len();
    let (request, read_only) = ConnectRequest::decode_frame(body).map_err(|error| error.to_string())?;
    input.advance(consumed);
    connect(shared, conn, &request, read_only)
}

/// Answers a four-letter word, once its argument is there, and closes.
fn answer_word(shared: &Shared, conn: &Conn, word: Word, argument: &[u8]) {
    // Before the desk is locked: some words look at every connection, this one too.
    let answer =
        match (words::refusal(word, &shared.config), word.argument_len(), argument.first_chunk::<8>()) {
            (Some(refusal), ..) => refusal,
            (None, 0, _) => words::answer(word, 0, word_context(shared)),
            (None, _, Some(argument)) => {
                words::answer(word, i64::from_be_bytes(*argument), word_context(shared))
            }
            (None, _, None) => return,
        };
    let mut desk = conn.desk();
    desk.out.extend_from_slice(answer.as_bytes());
    desk.phase = Phase::Closing;
}

fn word_context(shared: &Shared) -> words::Context<'_> {
    words::Context { config: &shared.config, stats: &shared.stats, member: shared }
}

fn connect(
    shared: &Shared,
    conn: &Arc<Conn>,
    request: &ConnectRequest,
    read_only: ReadOnlyByte,
) -> Result<(), String> {
    match shared.mode() {
        None => {
            // No word in the log: in a failover every client knocks, several times.
            conn.desk().phase = Phase::Closing;
            return Ok(());
        }
        // A session that the ensemble knows must not be taken for lost by its client: it is not answered here.
        Some(Mode::ReadOnly)
            if read_only != ReadOnlyByte::Present(true) || request.session_id != SessionId(0) =>
        {
            return Err("this member is cut off and takes new sessions of read-only clients alone".into());
        }
        Some(Mode::Leader) if !leader_serves(shared) => {
            return Err("this member leads, and leaderServes=no: the client must try another server".into());
        }
        Some(_) => {}
    }
    let here = shared.store.read().last_zxid();
    if request.last_zxid_seen > here {
        return Err(format!(
            "the client has seen {}, this server only {here}; it must try another server",
            request.last_zxid_seen
        ));
    }
    let limits = &shared.config.sessions;
    let timeout_ms = request.timeout_ms.clamp(limits.min_timeout_ms as i32, limits.max_timeout_ms as i32);
    {
        let mut desk = conn.desk();
        desk.phase = Phase::Opening;
        desk.read_only = read_only;
    }
    if request.session_id.0 == 0 {
        let conn = Arc::clone(conn);
        shared.node.send(NodeEvent::Client(FromClient::OpenSession { conn, timeout_ms }));
        return Ok(());
    }
    let session = request.session_id;
    if session::password_opens(session, request.password.as_deref().unwrap_or_default()) {
        let conn = Arc::clone(conn);
        shared.node.send(NodeEvent::Client(FromClient::Reattach { conn, session, timeout_ms }));
    } else {
        session_refused(conn);
    }
    Ok(())
}

fn leader_serves(shared: &Shared) -> bool {
    match &shared.config.ensemble {
        Ensemble::Standalone { .. } => true,
        Ensemble::Member(membership) => membership.leader_serves,
    }
}

/// The session is there: answers the connect request, and lets the connection go on.
pub fn session_opened(shared: &Shared, conn: &Arc<Conn>, session: SessionId, timeout_ms: i32) {
    let mut desk = conn.desk();
    if desk.phase == Phase::Closing {
        return;
    }
    desk.open(session, timeout_ms, clock::now_ns());
    // With the desk: when its task ends, it knows the entry and takes it away.
    let old = shared.conns.attach(session, conn);
    conn.stats.set_session(session, timeout_ms);
    let read_only = desk.read_only;
    let password = Bytes::copy_from_slice(&session::password(session));
    let response =
        ConnectResponse { protocol_version: 0, timeout_ms, session_id: session, password: Some(password) };
    put_response(&mut desk.out, &response, read_only, shared.mode());
    drop(desk);
    conn.wake();
    if let Some(old) = old {
        tracing::debug!(%session, old = %old.peer, new = %conn.peer, "the session moved to a new connection");
        old.supersede();
    }
}

/// The session is unknown, over, or the password is wrong: says so in the one way clients know, and closes.
pub fn session_refused(conn: &Conn) {
    let mut desk = conn.desk();
    let read_only = desk.read_only;
    let password = Some(Bytes::from_static(&[0; session::PASSWORD_LEN]));
    let response = ConnectResponse { password, ..ConnectResponse::default() };
    put_response(&mut desk.out, &response, read_only, None);
    desk.phase = Phase::Closing;
    drop(desk);
    conn.wake();
}

/// The readOnly byte goes only to clients that sent one; it says what this server is.
fn put_response(out: &mut BytesMut, response: &ConnectResponse, read_only: ReadOnlyByte, mode: Option<Mode>) {
    let byte = match read_only {
        ReadOnlyByte::Absent => ReadOnlyByte::Absent,
        ReadOnlyByte::Present(_) => ReadOnlyByte::Present(mode == Some(Mode::ReadOnly)),
    };
    frame::put(out, |out| response.encode_frame(byte, out));
}
