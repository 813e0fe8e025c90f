//! What waits to be sent on one quorum connection, and the loop that sends it.
//!
//! The node encodes packets straight into the outbox, behind a lock that is held for memory work only. A flush
//! writes what the socket takes at once, on the thread that has brought the node its event: waking another to do
//! it would cost more time than the call. What the socket does not take, the connection's task sends. Between
//! two stretches of packets there may be a walk over the store: it is encoded slice by slice as the socket takes
//! it, under the store's read lock, which is never held across a write. Or there is a part of the log, which is
//! read slice by slice.
//!
//! Both end with the link: once this side has closed it, no further slice and above all no end mark is
//! sent, because the store may then be replaced by another leader's, and half of each is no snapshot; and the log
//! may be cut where that leader's history is another.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use zoometry_replica::storage::error::StorageError;
use zoometry_replica::storage::log::LogRange;
use zoometry_replica::storage::snapshot::{encode_end, encode_head, encode_node};
use zoometry_replica::store::{Store, Walk};
use zoometry_replica::zab::Link;
use zoometry_wire::Record;
use zoometry_wire::jute::put_str;
use zoometry_wire::peer::{PacketKind, QuorumPacket};

use crate::disk::FileDisk;
use crate::snapshot_thread::{SLICE_BYTES, SLICE_NODES_MAX};

/// How long a link that this side has closed goes on sending what was in its outbox.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);
/// Stands behind a snapshot on the wire.
pub(super) const SIGNATURE: &str = "BenWasHere";
/// A sent buffer of at most this size is used again.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// This side wants its end; what is unsent is sent.
    Closing,
    /// More was unsent than is allowed.
    Overflowed,
    Gone,
}

enum Piece {
    Packets(BytesMut),
    Nodes { store: Arc<RwLock<Store>>, walk: Walk },
    Log(Box<LogRange<FileDisk>>),
}

struct Desk {
    pieces: VecDeque<Piece>,
    /// An empty buffer that has been one.
    spare: BytesMut,
    /// Bytes in `pieces`, and those that are being written.
    unsent_bytes: usize,
    /// Somebody has been told that this link wants a flush.
    awaits_flush: bool,
    /// The task is writing a piece; nobody else may.
    is_writing: bool,
    phase: Phase,
}

impl Desk {
    fn keep_spare(&mut self, mut bytes: BytesMut) {
        if bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare = bytes;
        }
    }
}

/// One link as the node and the connection's task share it.
pub(super) struct Outbox {
    pub(super) link: Link,
    pub(super) peer: SocketAddr,
    bytes_max: usize,
    /// The connection, for flushes; it does not block.
    socket: TcpStream,
    desk: Mutex<Desk>,
    /// Bytes read and written so far.
    moved_bytes: AtomicU64,
    /// This side is at work with what has arrived, and does not read.
    loads: AtomicBool,
    unsent: Notify,
    closing: Notify,
    overflowed: Notify,
    /// Batches of packets that may still be delivered before one is taken.
    room: Semaphore,
}

impl Outbox {
    pub(super) fn new(link: Link, peer: SocketAddr, bytes_max: usize, socket: TcpStream) -> Self {
        let desk = Desk {
            pieces: VecDeque::new(),
            spare: BytesMut::new(),
            unsent_bytes: 0,
            awaits_flush: false,
            is_writing: false,
            phase: Phase::Open,
        };
        Self {
            link,
            peer,
            bytes_max,
            socket,
            desk: Mutex::new(desk),
            moved_bytes: AtomicU64::new(0),
            loads: AtomicBool::new(false),
            unsent: Notify::new(),
            closing: Notify::new(),
            overflowed: Notify::new(),
            room: Semaphore::new(super::UNTAKEN_BATCHES_MAX),
        }
    }

    /// Puts a packet in; true if the link has to be remembered for the next flush.
    pub(super) fn send(&self, packet: &QuorumPacket) -> bool {
        self.put(|out| packet.encode(out), None)
    }

    /// Puts a snapshot in; true if the link has to be remembered for the next flush.
    pub(super) fn send_snapshot(&self, store: Arc<RwLock<Store>>) -> bool {
        let (head, walk) = {
            // The caller may hold this lock already, with a writer waiting for it.
            let store = store.read_recursive();
            (store.snapshot_head(), store.start_walk())
        };
        self.put(|out| encode_head(&head, out), Some(Piece::Nodes { store, walk }))
    }

    /// Puts a part of the log in, each transaction as PROPOSAL and COMMIT; true if the link has to be remembered for
    /// the next flush.
    pub(super) fn send_log(&self, range: LogRange<FileDisk>) -> bool {
        self.put(|_| {}, Some(Piece::Log(Box::new(range))))
    }

    fn put(&self, encode: impl FnOnce(&mut BytesMut), behind: Option<Piece>) -> bool {
        let mut desk = self.desk.lock();
        if desk.phase != Phase::Open {
            return false;
        }
        if !matches!(desk.pieces.back(), Some(Piece::Packets(_))) {
            let empty = std::mem::take(&mut desk.spare);
            desk.pieces.push_back(Piece::Packets(empty));
        }
        let Some(Piece::Packets(out)) = desk.pieces.back_mut() else { unreachable!("just made") };
        let before = out.len();
        encode(out);
        let bytes = out.len() - before;
        desk.unsent_bytes += bytes;
        desk.pieces.extend(behind);
        if desk.unsent_bytes > self.bytes_max {
            desk.phase = Phase::Overflowed;
            desk.pieces.clear();
            drop(desk);
            self.overflowed.notify_one();
            return false;
        }
        !std::mem::replace(&mut desk.awaits_flush, true)
    }

    /// Sends what the socket takes, and leaves the rest to the task.
    pub(super) fn flush(&self) {
        let mut desk = self.desk.lock();
        desk.awaits_flush = false;
        if !self.write_now(&mut desk) {
            drop(desk);
            self.unsent.notify_one();
        }
    }

    /// Whether that was all there is.
    fn write_now(&self, desk: &mut Desk) -> bool {
        if desk.is_writing || desk.phase != Phase::Open || desk.pieces.len() != 1 {
            return false;
        }
        let Some(Piece::Packets(bytes)) = desk.pieces.front_mut() else { return false };
        // An error is the task's to find, and to tell.
        let Ok(sent) = (&self.socket).write(bytes) else { return false };
        bytes.advance(sent);
        let is_all = bytes.is_empty();
        desk.unsent_bytes = desk.unsent_bytes.saturating_sub(sent);
        self.moved(sent);
        if is_all && let Some(Piece::Packets(bytes)) = desk.pieces.pop_front() {
            desk.keep_spare(bytes);
        }
        is_all
    }

    /// Ends the connection in both directions, whoever else has hold of it.
    pub(super) fn hang_up(&self) {
        // It may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// This side wants the end.
    pub(super) fn close(&self) {
        let mut desk = self.desk.lock();
        if desk.phase == Phase::Open {
            desk.phase = Phase::Closing;
            if let Some(unread) = desk.pieces.iter().position(|piece| !matches!(piece, Piece::Packets(_))) {
                desk.pieces.truncate(unread);
            }
            drop(desk);
            self.unsent.notify_one();
            self.closing.notify_one();
        }
    }

    /// Waits until one more batch of packets may be delivered.
    pub(super) async fn room(&self) {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
    }

    /// A batch of packets has been dealt with.
    pub(super) fn taken(&self) {
        self.room.add_permits(1);
    }

    /// Bytes of packets that are not written yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.desk.lock().unsent_bytes
    }

    /// Counts bytes that were read or written.
    pub(super) fn moved(&self, bytes: usize) {
        self.moved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes read and written so far.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// This side begins, or has ended, to work on what has arrived instead of reading on.
    pub(super) fn set_loads(&self, loads: bool) {
        self.loads.store(loads, Ordering::Relaxed);
    }

    /// Whether this side is at work with what has arrived.
    pub(super) fn loads(&self) -> bool {
        self.loads.load(Ordering::Relaxed)
    }

    /// Whether events of this link are still wanted.
    pub(super) fn is_open(&self) -> bool {
        self.desk.lock().phase == Phase::Open
    }

    /// The connection is gone; true if this side did not want that.
    pub(super) fn end(&self) -> bool {
        let mut desk = self.desk.lock();
        desk.pieces.clear();
        std::mem::replace(&mut desk.phase, Phase::Gone) != Phase::Closing
    }

    /// Ends when this side has closed the link and its time for sending is over.
    pub(super) async fn out_of_time(&self) {
        self.closing.notified().await;
        tokio::time::sleep(CLOSE_LINGER).await;
    }

    /// Ends when more is unsent than is allowed.
    pub(super) async fn overflow(&self) {
        self.overflowed.notified().await;
    }

    /// Sends until this side has closed the link and all is sent, or the socket fails.
    pub(super) async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        loop {
            let next = {
                let mut desk = self.desk.lock();
                let next = desk.pieces.pop_front();
                desk.is_writing = next.is_some();
                match (desk.phase, next) {
                    (Phase::Closing | Phase::Gone, None) => return Ok(()),
                    (_, next) => next,
                }
            };
            match next {
                Some(Piece::Packets(bytes)) => self.write_packets(bytes, writer).await?,
                Some(Piece::Nodes { store, walk }) => {
                    if !self.write_nodes(&store, walk, writer).await? {
                        return Ok(());
                    }
                }
                Some(Piece::Log(range)) => {
                    if !self.write_log(range, writer).await? {
                        return Ok(());
                    }
                }
                None => self.unsent.notified().await,
            }
        }
    }

    async fn write_packets(
        &self,
        bytes: BytesMut,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut unwritten = bytes.as_ref();
        while !unwritten.is_empty() {
            // Counted as they go: for all of them together a slow link may take longer than anybody may be silent.
            let written = writer.write(unwritten).await?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.moved(written);
            unwritten = &unwritten[written..];
        }
        let mut desk = self.desk.lock();
        desk.unsent_bytes = desk.unsent_bytes.saturating_sub(bytes.len());
        desk.keep_spare(bytes);
        Ok(())
    }

    /// Walks the store slice by slice, then ends the stream; false when the link was closed meanwhile.
    async fn write_nodes(
        &self,
        store: &RwLock<Store>,
        mut walk: Walk,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<bool> {
        let (mut slice, mut budget) = (BytesMut::with_capacity(SLICE_BYTES), SLICE_NODES_MAX / 8);
        loop {
            let mut nodes = 0usize;
            let more = {
                let store = store.read();
                let more = store.walk(&mut walk, budget, &mut |node| {
                    nodes += 1;
                    encode_node(&node, &mut slice);
                });
                // Under the lock: who replaces the store has closed the link before.
                if !self.is_open() {
                    return Ok(false);
                }
                more
            };
            budget = (SLICE_BYTES * nodes.max(1) / slice.len().max(1)).clamp(1, SLICE_NODES_MAX);
            if !more {
                encode_end(&mut slice);
                put_str(&mut slice, SIGNATURE);
            }
            writer.write_all(&slice).await?;
            self.moved(slice.len());
            slice.clear();
            if !more {
                return Ok(true);
            }
        }
    }

    /// Reads a part of the log slice by slice; false when the link was closed meanwhile.
    async fn write_log(
        &self,
        mut range: Box<LogRange<FileDisk>>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<bool> {
        let mut slice = BytesMut::with_capacity(SLICE_BYTES);
        let mut missing = range.txns();
        loop {
            // Files are read where waiting for them holds nobody up.
            let reading = tokio::task::spawn_blocking(move || {
                let read = encode_txns(&mut range, &mut slice)?;
                Ok::<_, StorageError>((range, slice, read))
            });
            let read;
            (range, slice, read) = reading.await?.map_err(std::io::Error::other)?;
            missing -= read.min(missing);
            if read == 0 && missing > 0 {
                let why = format!("{missing} transactions that were in the log files are not there any more");
                return Err(std::io::Error::other(why));
            }
            // Behind the reading: who cuts the log has closed the link before.
            if !self.is_open() {
                return Ok(false);
            }
            writer.write_all(&slice).await?;
            self.moved(slice.len());
            slice.clear();
            if read == 0 {
                return Ok(true);
            }
        }
    }
}

/// Puts some of the transactions into `out`; returns how many, none at the end.
fn encode_txns(range: &mut LogRange<FileDisk>, out: &mut BytesMut) -> Result<u64, StorageError> {
    let mut read = 0;
    while out.len() < SLICE_BYTES {
        let Some((zxid, payload)) = range.next().transpose()? else { break };
        read += 1;
        QuorumPacket::new(PacketKind::Proposal, zxid).with_data(payload).encode(out);
        QuorumPacket::new(PacketKind::Commit, zxid).encode(out);
    }
    Ok(read)
}
