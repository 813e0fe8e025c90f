//! Moves the bytes of one connection: its task, and what the node sends by itself.
//!
//! Replies are written by whoever put them into the outbox, if the socket takes them: waking another thread to
//! do it costs more than the call. So two may write, and take turns: while the task has bytes in hand that the
//! socket did not take ([`Conn::is_sending`]), the node leaves everything to it. The node writes under the
//! desk's lock, the task outside of it; a socket never blocks.

use std::io::{ErrorKind, Result};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::intake::digest;
use super::{Conn, Desk, Overflow, Phase};
use crate::shared::Shared;
use crate::stats::Counter;
use crate::telemetry::Traced;

const READ_CHUNK: usize = 4 << 10;
const READ_CHUNK_BUSY: usize = 64 << 10;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed it, or it was told to go and everything has been sent.
    Quiet,
    /// What arrived is no ZooKeeper request.
    Garbage(String),
}

/// Moves the bytes of one connection until it ends.
pub async fn serve(shared: Arc<Shared>, conn: Arc<Conn>, mut reader: OwnedReadHalf) {
    let stream: &TcpStream = conn.writer.as_ref();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %conn.peer, %error, "no TCP_NODELAY");
    }
    match exchange(&shared, &conn, &mut reader).await {
        Ok(End::Quiet) => {}
        Ok(End::Garbage(why)) => {
            shared.stats.add(Counter::MalformedFrames, 1);
            tracing::info!(peer = %conn.peer, "closing a connection: {why}");
        }
        Err(error) => tracing::debug!(peer = %conn.peer, %error, "connection lost"),
    }
}

/// Whoever has hold of the connection for a while yet: its client has to hear at once that it is over. Whatever
/// was in the outbox has been sent.
struct HangUp<'a>(&'a Conn);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        let stream: &TcpStream = self.0.writer.as_ref();
        // It may have ended already.
        let _ = SockRef::from(stream).shutdown(Shutdown::Write);
    }
}

async fn exchange(shared: &Arc<Shared>, conn: &Arc<Conn>, reader: &mut OwnedReadHalf) -> Result<End> {
    let _hang_up = HangUp(conn);
    let mut input = BytesMut::with_capacity(READ_CHUNK);
    let mut output = BytesMut::new();
    let mut traced = Vec::new();
    let mut chunk = READ_CHUNK;
    let patience = Duration::from_millis(shared.config.client.sessionless_timeout_ms);
    // Begins with the ending, and again with every step that the client takes; not with every call.
    let mut last_moment = None;
    loop {
        let was_in_hand = !output.is_empty();
        let (phase, may_read) = take_outbox(shared, conn, &mut output, &mut traced);
        if !traced.is_empty() {
            shared.tracer.finish(&mut traced);
        }
        let unsent = output.len();
        send(conn, &mut output)?;
        if output.len() < unsent {
            last_moment = None;
        }
        if !output.is_empty() {
            conn.desk().hold_in_hand(output.len());
        }
        if output.is_empty() && (was_in_hand || !may_read && unsent > 0) {
            // Behind what was in hand the outbox has not been looked at, and whoever put something there may have
            // woken this task before. Or it was these bytes that kept requests out.
            continue;
        }
        if phase == Phase::Closing && output.is_empty() {
            return Ok(End::Quiet);
        }
        // What a limit or the opening of the session has left in the buffer comes before new bytes.
        if may_read && !input.is_empty() {
            let before = input.len();
            if let Some(end) = digest(shared, conn, &mut input) {
                return Ok(end);
            }
            if input.len() < before {
                yield_now().await;
                continue;
            }
        }
        input.reserve(chunk);
        // Made when it is looked at: on the way of a read nobody pays for a timer.
        let out_of_patience = async {
            let last_moment = last_moment.get_or_insert_with(|| Instant::now() + patience);
            tokio::time::sleep_until(*last_moment).await;
        };
        tokio::select! {
            read = reader.read_buf(&mut input), if may_read => {
                let read = read?;
                if read == 0 {
                    return Ok(End::Quiet);
                }
                let is_busy = read >= chunk;
                chunk = if is_busy { READ_CHUNK_BUSY } else { READ_CHUNK };
                if let Some(end) = digest(shared, conn, &mut input) {
                    return Ok(end);
                }
                if is_busy {
                    // What has been read may be thousands of requests. The runtime counts it as one step, and would
                    // let 128 of them pass before the next connection's turn.
                    yield_now().await;
                }
            }
            ready = conn.writer.writable(), if !output.is_empty() => ready?,
            () = out_of_patience, if phase == Phase::Closing => {
                shared.stats.add(Counter::SessionlessExpired, 1);
                tracing::debug!(peer = %conn.peer, "closing a connection whose client does not take its last replies");
                return Ok(End::Quiet);
            }
            () = conn.wake.notified() => {}
        }
    }
}

/// Sends what the socket takes of the bytes that the task has in hand.
fn send(conn: &Conn, output: &mut BytesMut) -> Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    match conn.writer.try_write(output) {
        Ok(sent) => output.advance(sent),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    if output.is_empty() {
        conn.is_sending.store(false, Ordering::Release);
    }
    Ok(())
}

/// Moves the outbox to the bytes being written; says where the connection stands and whether to read on.
fn take_outbox(
    shared: &Shared,
    conn: &Conn,
    output: &mut BytesMut,
    traced: &mut Vec<Traced>,
) -> (Phase, bool) {
    let mut desk = conn.desk();
    // What is taken now is most often sent at once; what is not is booked behind the sending.
    desk.in_hand = output.len();
    if output.is_empty() {
        if !desk.out.is_empty() {
            // Under the lock: the node looks at it there.
            conn.is_sending.store(true, Ordering::Release);
            std::mem::swap(output, &mut desk.out);
            desk.longest_reply = 0;
            desk.batch.bytes_sent += output.len() as u64;
        }
        desk.take_traced(shared, traced);
    }
    report(shared, conn, &mut desk);
    if desk.overflow != Overflow::None {
        // Its client does not read, so what is in hand would stay there.
        *output = BytesMut::new();
        desk.in_hand = 0;
    }
    desk.book_held();
    desk.is_read = matches!(desk.phase, Phase::New | Phase::Open)
        && desk.has_room(shared.config.own.max_pipelined, output.len());
    (desk.phase, desk.is_read)
}

impl Conn {
    /// Sends what is in the outbox, if the socket takes it; the task is woken for what is left to do. The
    /// caller holds no desk and not the store; `traced` is empty, and is again afterwards.
    pub fn flush(&self, shared: &Shared, traced: &mut Vec<Traced>) {
        let mut desk = self.desk();
        desk.to_be_woken = false;
        let is_all = self.send_now(shared, &mut desk, traced);
        desk.book_held();
        let has_more_to_do = !is_all || !desk.is_read || desk.phase == Phase::Closing;
        if !has_more_to_do {
            report(shared, self, &mut desk);
        }
        drop(desk);
        if has_more_to_do {
            self.wake();
        }
    }

    /// Whether that was all there is.
    fn send_now(&self, shared: &Shared, desk: &mut Desk, traced: &mut Vec<Traced>) -> bool {
        if desk.out.is_empty() {
            return true;
        }
        if self.is_sending.load(Ordering::Acquire) {
            return false;
        }
        desk.take_traced(shared, traced);
        if !traced.is_empty() {
            shared.tracer.finish(traced);
        }
        // An error is the task's to find, and to tell.
        let Ok(sent) = self.writer.try_write(&desk.out) else { return false };
        desk.batch.bytes_sent += sent as u64;
        if sent < desk.out.len() {
            desk.out.advance(sent);
            return false;
        }
        // Unlike advancing, this keeps the whole buffer for what comes.
        desk.out.clear();
        desk.longest_reply = 0;
        true
    }
}

impl Desk {
    /// The traces of the requests whose replies are about to be written.
    fn take_traced(&mut self, shared: &Shared, traced: &mut Vec<Traced>) {
        std::mem::swap(traced, &mut self.traced);
        if self.untraced > 0 {
            shared.tracer.suppressed(std::mem::take(&mut self.untraced));
        }
    }
}

/// Hands what happened on the connection to the statistics: once for all that happened since the last time.
fn report(shared: &Shared, conn: &Conn, desk: &mut Desk) {
    if desk.batch.is_empty() && desk.overflow != Overflow::Uncounted {
        return;
    }
    conn.stats.record(&desk.batch, desk.last.take());
    conn.stats.set_queued(desk.pipeline.len());
    shared.stats.record(&mut desk.batch);
    if desk.overflow == Overflow::Uncounted {
        desk.overflow = Overflow::Counted;
        shared.stats.add(Counter::OutboxOverflows, 1);
    }
}
