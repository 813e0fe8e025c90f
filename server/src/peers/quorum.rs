//! The quorum port: learners connect here to the leader, and packets go both ways.
//!
//! The port is bound and accepts as long as the member lives, leader or not: whether a connection is welcome
//! is the consensus machine's to say, which hears of it when its first packet is there: FOLLOWERINFO or OBSERVERINFO. A packet has no length in front, so whole packets are found by walking
//! over their fields. A SNAP packet is followed by a stream that is no packets; only a link that this side
//! has opened may bring one.
//!
//! Limits: connections that have not said who they are ([`hellos`](super::hellos)), and [`INTRODUCTION_BYTES_MAX`] of each;
//! [`LINKS_PER_MEMBER_MAX`] links of each id that has a server line, and [`UNLISTED_LEARNERS_MAX`] of all other ids
//! together, so that strangers take no member's place;
//! [`LINK_OUTBOX_BYTES_MAX`](super::LINK_OUTBOX_BYTES_MAX) unsent; `packet_data_bytes_max` of a packet's data
//! and [`PACKET_REST_BYTES_MAX`] of what surrounds them, beyond which the link is closed.
//!
//! Source: `Leader.java` (LearnerCnxAcceptor), `LearnerHandler.java`, `Learner.java`; reference §8.4, §8.7.

use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use zoometry_replica::storage::log::LogRange;
use zoometry_replica::store::Store;
use zoometry_replica::zab::{Link, ServerId};
use zoometry_wire::Record;
use zoometry_wire::jute::{Malformed, Reader};
use zoometry_wire::peer::{AuthInfo, LearnerInfo, PacketKind, QuorumPacket};

use super::election::ACCEPT_RETRY;
use super::hellos::{Hellos, room_for_one_more};
use super::outbox::{CLOSE_LINGER, Outbox};
use super::{CONNECT_PAUSE, Hub, PeerEvent, address, snapshot};
use crate::clock;
use crate::config::Endpoint;
use crate::disk::FileDisk;
use crate::seldom::Seldom;

/// A read buffer's size. Packets' data are slices of it, so it is used to its end before a new one is taken.
const READ_BYTES: usize = 64 << 10;
/// With less room than this a new read buffer is taken.
const READ_ROOM_BYTES_MIN: usize = 16 << 10;
/// Most bytes of a packet besides its data: identities. Ours forward a quarter of a megabyte at most; an Apache
/// follower's clients may have any number, and must not cost it its link too easily.
const PACKET_REST_BYTES_MAX: usize = 8 << 20;
/// Links that one id with a server line may have to this member: a learner that comes back may do so before its old link
/// is found dead. Further ones are closed.
pub(super) const LINKS_PER_MEMBER_MAX: usize = 8;
/// Links of ids without a server line: observers, taps, members that will join. Further ones are closed.
pub(super) const UNLISTED_LEARNERS_MAX: usize = 16;
/// Most links at a time that have introduced themselves.
pub(super) fn links_max(members: usize) -> usize {
    members * LINKS_PER_MEMBER_MAX + UNLISTED_LEARNERS_MAX
}

/// Most bytes that a learner may send before its first packet is whole.
pub(super) const INTRODUCTION_BYTES_MAX: usize = 4 << 10;

/// Every link there is.
#[derive(Default)]
pub(super) struct Links {
    open: Mutex<FxHashMap<Link, Arc<Outbox>>>,
    last: AtomicU64,
    hellos: Hellos,
    /// How many there are of each id that has introduced itself.
    introduced: Mutex<FxHashMap<ServerId, usize>>,
    /// Links with something unsent that their writers have not been told of.
    unflushed: Mutex<Vec<Arc<Outbox>>>,
}

/// Who has opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opened {
    /// This member, to that one.
    Here(ServerId),
    There,
}

impl Links {
    fn get(&self, link: Link) -> Option<Arc<Outbox>> {
        self.open.lock().get(&link).cloned()
    }

    pub(super) fn send(&self, link: Link, packet: &QuorumPacket) {
        let Some(outbox) = self.get(link) else { return };
        if outbox.send(packet) {
            self.unflushed.lock().push(outbox);
        }
    }

    pub(super) fn send_snapshot(&self, link: Link, store: Arc<RwLock<Store>>) {
        let Some(outbox) = self.get(link) else { return };
        if outbox.send_snapshot(store) {
            self.unflushed.lock().push(outbox);
        }
    }

    pub(super) fn send_log(&self, link: Link, range: LogRange<FileDisk>) {
        let Some(outbox) = self.get(link) else { return };
        if outbox.send_log(range) {
            self.unflushed.lock().push(outbox);
        }
    }

    pub(super) fn flush(&self) {
        for outbox in self.unflushed.lock().drain(..) {
            outbox.flush();
        }
    }

    pub(super) fn close(&self, link: Link) {
        if let Some(outbox) = self.open.lock().remove(&link) {
            outbox.close();
        }
    }

    pub(super) fn address(&self, link: Link) -> Option<SocketAddr> {
        self.open.lock().get(&link).map(|outbox| outbox.peer)
    }

    pub(super) fn taken(&self, link: Link) {
        if let Some(outbox) = self.open.lock().get(&link) {
            outbox.taken();
        }
    }

    pub(super) fn unsent_bytes(&self, link: Link) -> usize {
        self.open.lock().get(&link).map_or(0, |outbox| outbox.unsent_bytes())
    }

    pub(super) fn loads(&self, link: Link) -> bool {
        self.open.lock().get(&link).is_some_and(|outbox| outbox.loads())
    }

    pub(super) fn moved_bytes(&self, link: Link) -> Option<u64> {
        self.open.lock().get(&link).map(|outbox| outbox.moved_bytes())
    }

    /// Counts a link of this id, until what is returned is dropped.
    fn admit(hub: &Arc<Hub>, id: ServerId) -> anyhow::Result<Admitted> {
        let mut introduced = hub.links.introduced.lock();
        if hub.member(id).is_some() {
            let count = introduced.get(&id).copied().unwrap_or_default();
            room_for_one_more(count, LINKS_PER_MEMBER_MAX, &format!("links of server {id}"))?;
        } else {
            let unlisted = introduced.iter().filter(|(id, _)| hub.member(**id).is_none());
            let count = unlisted.map(|(_, count)| count).sum();
            room_for_one_more(count, UNLISTED_LEARNERS_MAX, "learners without a server line")?;
        }
        *introduced.entry(id).or_default() += 1;
        Ok(Admitted { hub: Arc::clone(hub), id })
    }

    fn add(&self, peer: SocketAddr, outbox_bytes_max: usize, socket: std::net::TcpStream) -> Arc<Outbox> {
        let link = Link(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let outbox = Arc::new(Outbox::new(link, peer, outbox_bytes_max, socket));
        self.open.lock().insert(link, Arc::clone(&outbox));
        outbox
    }
}

/// A link that counts as one of its id's.
struct Admitted {
    hub: Arc<Hub>,
    id: ServerId,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut introduced = self.hub.links.introduced.lock();
        if let Entry::Occupied(mut count) = introduced.entry(self.id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Accepts learners for ever.
pub(super) async fn accept(hub: Arc<Hub>, listener: TcpListener) {
    let failures = Seldom::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = failures.say(clock::now_ns()) {
                    tracing::warn!(%error, left_out, "cannot accept a quorum connection; trying again (raise `ulimit -Hn`?)");
                }
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        hub.spawn(greet(Arc::clone(&hub), stream, peer));
    }
}

/// Finds out who has connected.
async fn greet(hub: Arc<Hub>, mut stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let patience = Duration::from_millis(hub.options.hello_timeout_ms);
    let mut first = BytesMut::with_capacity(256);
    let introduction = read_introduction(&mut stream, &mut first);
    let introduced = hub.links.hellos.hear(peer.ip(), patience, introduction).await;
    let admitted = introduced.and_then(|id| Links::admit(&hub, id)).and_then(|admitted| {
        let socket = second_hold(&stream).context("no second hold of it (raise `ulimit -n`?)")?;
        Ok((admitted, socket))
    });
    match admitted {
        Ok((_admitted, socket)) => serve(&hub, (stream, socket), peer, Opened::There, &first).await,
        Err(error) => hub.links.hellos.complain("a quorum", peer, &error),
    }
}

/// Reads until the first packet is whole, which stays in the buffer; returns who says to be there.
async fn read_introduction(stream: &mut TcpStream, buffer: &mut BytesMut) -> anyhow::Result<ServerId> {
    loop {
        if let Some(length) = QuorumPacket::measure(buffer, INTRODUCTION_BYTES_MAX)? {
            let packet = take_packet(Bytes::copy_from_slice(&buffer[..length]))?;
            let kind = PacketKind::from_code(packet.kind);
            if !matches!(kind, Some(PacketKind::FollowerInfo | PacketKind::ObserverInfo)) {
                bail!("a first packet of kind {}, expected FOLLOWERINFO or OBSERVERINFO", packet.kind);
            }
            let info = LearnerInfo::read(packet.data.as_deref().unwrap_or_default())?;
            return Ok(ServerId(info.sid));
        }
        if buffer.len() > INTRODUCTION_BYTES_MAX {
            bail!("more than {INTRODUCTION_BYTES_MAX} bytes and no whole packet");
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("closed after {} bytes of its first packet", buffer.len());
        }
    }
}

/// See [`Peers::connect`](super::Peers::connect).
pub(super) async fn connect(hub: Arc<Hub>, to: ServerId) {
    let addresses = hub.member(to).into_iter().flat_map(|member| &member.addresses);
    let places: Vec<_> =
        addresses.map(|address| Endpoint { host: address.host.clone(), port: address.quorum_port }).collect();
    let patience = Duration::from_millis(hub.options.quorum_connect_timeout_ms);
    let opened = address::open(&places, patience).await;
    match opened.and_then(|stream| Ok((stream.peer_addr()?, second_hold(&stream)?, stream))) {
        Ok((peer, socket, stream)) => serve(&hub, (stream, socket), peer, Opened::Here(to), &[]).await,
        Err(error) => {
            tracing::debug!(member = %to, "cannot connect to the quorum port: {error:#}");
            sleep(CONNECT_PAUSE).await;
            hub.deliver(PeerEvent::Unreachable(to));
        }
    }
}

/// The same connection once more, for the outbox. It does not block either.
fn second_hold(stream: &TcpStream) -> std::io::Result<std::net::TcpStream> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// The outbox has hold of the connection as well: when the task ends, however it does, the other side must
/// hear of it.
struct HangUp(Arc<Outbox>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// One link's life, both directions at once. `first` was read before.
async fn serve(
    hub: &Hub,
    (mut stream, socket): (TcpStream, std::net::TcpStream),
    peer: SocketAddr,
    opened: Opened,
    first: &[u8],
) {
    address::repeat_soon(&stream);
    let outbox = hub.links.add(peer, hub.options.outbox_bytes_max, socket);
    let _hang_up = HangUp(Arc::clone(&outbox));
    let link = outbox.link;
    hub.deliver(match opened {
        Opened::Here(to) => PeerEvent::Connected(to, link),
        Opened::There => PeerEvent::Accepted(link),
    });
    let (mut reader, mut writer) = stream.split();
    let ended = tokio::select! {
        ended = read(hub, &outbox, opened, first, &mut reader) => ended,
        written = outbox.write(&mut writer) => written.map_err(anyhow::Error::from),
        () = outbox.overflow() => Err(anyhow::anyhow!(
            "more than {} bytes unsent: the other side does not read fast enough",
            hub.options.outbox_bytes_max
        )),
        () = outbox.out_of_time() => Ok(()),
    };
    hub.links.open.lock().remove(&link);
    if outbox.end() {
        match ended {
            Ok(()) => tracing::info!(%peer, "quorum connection ended by the other side"),
            Err(error) => tracing::warn!(%peer, "closing a quorum connection: {error:#}"),
        }
        hub.deliver(PeerEvent::Closed(link));
    } else {
        // With unread bytes left, closing would destroy what the other side has not read yet.
        let _ = writer.shutdown().await;
        let _ = timeout(CLOSE_LINGER, tokio::io::copy(&mut reader, &mut tokio::io::sink())).await;
    }
}

/// Reads until the other side closes.
async fn read(
    hub: &Hub,
    outbox: &Outbox,
    opened: Opened,
    first: &[u8],
    reader: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<()> {
    let link = outbox.link;
    let deliver = |event| {
        if outbox.is_open() {
            hub.deliver(event);
        }
    };
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    buffer.extend_from_slice(first);
    outbox.moved(first.len());
    loop {
        let mut packets = Vec::new();
        let found = split_packets(&mut buffer, hub.options.packet_data_bytes_max, &mut packets);
        if !packets.is_empty() {
            outbox.room().await;
            deliver(PeerEvent::Packets(link, packets));
        }
        if let Some(packet) = found? {
            if opened == Opened::There {
                bail!("a SNAP packet from a learner; only leaders send snapshots");
            }
            let first = std::mem::take(&mut buffer);
            let (store, rest) =
                snapshot::receive(hub.options.store.clone(), packet.zxid, first, reader, outbox).await?;
            buffer = rest;
            deliver(PeerEvent::Snapshot(link, packet, Box::new(store)));
            continue;
        }
        if buffer.capacity() - buffer.len() < READ_ROOM_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let read = reader.read_buf(&mut buffer).await?;
        outbox.moved(read);
        if read == 0 {
            if !buffer.is_empty() {
                bail!("it ended inside of a packet");
            }
            return Ok(());
        }
    }
}

/// Takes whole packets off the buffer's front, up to a SNAP packet, which is returned.
fn split_packets(
    buffer: &mut BytesMut,
    data_bytes_max: usize,
    packets: &mut Vec<QuorumPacket>,
) -> Result<Option<QuorumPacket>, Malformed> {
    while let Some(length) = QuorumPacket::measure(buffer, data_bytes_max)? {
        let packet = take_packet(buffer.split_to(length).freeze())?;
        if packet.kind == PacketKind::Snap as i32 {
            return Ok(Some(packet));
        }
        packets.push(packet);
    }
    if buffer.len() > data_bytes_max + PACKET_REST_BYTES_MAX {
        return Err(Malformed { what: "quorum packet's identities", offset: data_bytes_max });
    }
    Ok(None)
}

/// The packet that is all of `bytes`, which have been measured; its data are a slice of them.
fn take_packet(bytes: Bytes) -> Result<QuorumPacket, Malformed> {
    let mut input = Reader::new(&bytes);
    let (kind, zxid) = (Record::decode(&mut input)?, Record::decode(&mut input)?);
    let data = input.buffer()?.map(|data| bytes.slice_ref(data));
    let authinfo = AuthInfo::decode(&mut input)?;
    Ok(QuorumPacket { kind, zxid, data, authinfo })
}
