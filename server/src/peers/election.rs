//! The election port: one connection between each pair of members, for votes.
//!
//! Who dials says who it is in one write (Apache's reader reads the address in one read). The connection that
//! stays is the one *opened by the larger id*: the smaller id's dial is closed by both ends, and the larger one
//! dials back, to the address in the hello unless that is a wildcard. A newer connection takes an older one's
//! place.
//!
//! A member dials when it has a vote to tell and no connection, and goes on trying while that vote waits. Only
//! the newest vote waits; the last one sent is sent again on a new connection, because nobody knows whether
//! the old one delivered it. Votes may therefore arrive twice, or late.
//!
//! Limits: connections that have not said who they are ([`hellos`](super::hellos)); [`STRANGERS_MAX`] ids without a
//! server line, of which the one that has been connected for longest makes room; [`VOTES_UNHEARD_MAX`] votes of each
//! member, beyond which its connection is not read.
//!
//! Source: `QuorumCnxManager.java`; reference §8.1.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use zoometry_replica::zab::ServerId;
use zoometry_wire::peer::{ANONYMOUS_OBSERVER, ElectionHello, NOTIFICATION_LIMIT, Notification};

use super::hellos::{Hellos, room_for_one_more};
use super::{Hub, PeerEvent, PeerOptions, address};
use crate::clock;
use crate::config::Endpoint;
use crate::seldom::Seldom;

/// Ids without a server line that may hold a connection; one more, and the one that was connected first is closed.
pub(super) const STRANGERS_MAX: usize = 64;
/// Votes of one member that may be delivered and not yet [heard](super::Peers::heard); as many as Apache's server keeps.
pub(super) const VOTES_UNHEARD_MAX: usize = 100;
/// First pause between two dials; it doubles.
const REDIAL_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two dials.
const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the smaller id waits to be dialled back before it says hello again.
const DIAL_BACK_WAIT: Duration = Duration::from_millis(500);
/// Wait before accepting again when the process has no file descriptor left.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Everybody's mailboxes, and who stands at the door.
pub(super) struct Election {
    mailboxes: Mutex<HashMap<ServerId, Arc<Mailbox>>>,
    hellos: Hellos,
    next: AtomicU64,
    /// The next name for an observer that does not say its own.
    anonymous: AtomicI64,
    hello: Bytes,
}

/// What waits for one member, and its connection.
struct Mailbox {
    id: ServerId,
    /// It has no server line.
    stranger: bool,
    state: Mutex<State>,
    /// Cuts the dialler's pause short.
    hurry: Notify,
    /// Votes that may still be delivered before one is heard.
    room: Semaphore,
}

#[derive(Default)]
struct State {
    /// A message to be sent, with its length.
    unsent: Option<Bytes>,
    /// The last one written to a connection.
    sent: Option<Bytes>,
    current: Option<Current>,
    /// A task is at it.
    dialling: bool,
    /// The member has said hello and waits to be dialled back, whether or not there is a connection.
    dial_back: bool,
    /// Where its hello said it is.
    told: Option<Endpoint>,
    /// Before the next dial.
    pause: Duration,
    /// Its being out of reach has been logged.
    lamented: bool,
}

/// The connection in use.
struct Current {
    number: u64,
    wake: Arc<Notify>,
    /// Dropped when another takes its place.
    _kept: oneshot::Sender<()>,
}

impl Election {
    pub(super) fn new(options: &PeerOptions) -> Self {
        let others = options.members.keys().map(|id| ServerId(*id as i64)).filter(|id| *id != options.my_id);
        let mailboxes = others.map(|id| (id, Arc::new(Mailbox::new(id, false)))).collect();
        let me = u64::try_from(options.my_id.0).ok().and_then(|id| options.members.get(&id));
        let addresses = me.into_iter().flat_map(|member| &member.addresses);
        let addresses = addresses
            .map(|address| Endpoint { host: address.host.clone(), port: address.election_port }.to_string());
        let hello = ElectionHello { sid: options.my_id.0, addresses: addresses.collect() };
        Self {
            mailboxes: Mutex::new(mailboxes),
            hellos: Hellos::default(),
            next: AtomicU64::new(1),
            anonymous: AtomicI64::new(-1),
            hello: hello.to_bytes(),
        }
    }

    fn mailbox(&self, id: ServerId) -> Option<Arc<Mailbox>> {
        self.mailboxes.lock().get(&id).cloned()
    }

    /// Does something with a member's mailbox, which is made if there is none; an error when there are too
    /// many strangers that are being called. Strangers' mailboxes are cleared away under the same lock, so none is lost
    /// in use.
    fn enter<T>(&self, hub: &Hub, id: ServerId, work: impl FnOnce(&Arc<Mailbox>) -> T) -> anyhow::Result<T> {
        let mut mailboxes = self.mailboxes.lock();
        if let Some(mailbox) = mailboxes.get(&id) {
            return Ok(work(mailbox));
        }
        let strangers = |mailboxes: &HashMap<ServerId, Arc<Mailbox>>| {
            mailboxes.values().filter(|mailbox| mailbox.stranger).count()
        };
        if strangers(&mailboxes) >= STRANGERS_MAX {
            mailboxes.retain(|_, mailbox| {
                let state = mailbox.state.lock();
                !mailbox.stranger || state.current.is_some() || state.dialling
            });
        }
        if strangers(&mailboxes) >= STRANGERS_MAX {
            let connected = mailboxes.values().filter(|mailbox| mailbox.stranger);
            let oldest = connected.filter_map(|mailbox| Some((mailbox.connected()?, mailbox.id))).min();
            if let Some(mailbox) = oldest.and_then(|(_, id)| mailboxes.remove(&id)) {
                mailbox.let_go(hub);
            }
        }
        room_for_one_more(strangers(&mailboxes), STRANGERS_MAX, "ids without a server line")?;
        let mailbox = mailboxes.entry(id).or_insert_with(|| Arc::new(Mailbox::new(id, true)));
        Ok(work(mailbox))
    }
}

impl Mailbox {
    fn new(id: ServerId, stranger: bool) -> Self {
        let room = Semaphore::new(VOTES_UNHEARD_MAX);
        Self { id, stranger, state: Mutex::default(), hurry: Notify::new(), room }
    }

    /// Starts the dialler unless it is at work.
    fn dial(self: &Arc<Self>, hub: &Arc<Hub>, mut state: MutexGuard<'_, State>) {
        if !state.dialling {
            state.dialling = true;
            drop(state);
            hub.spawn(dial(Arc::clone(hub), Arc::clone(self)));
        }
    }

    /// Makes a connection the one in use. The event goes out under the lock, so that its order is that of
    /// the connections.
    fn install(&self, hub: &Hub) -> Installed {
        let number = hub.election.next.fetch_add(1, Ordering::Relaxed);
        let (kept, replaced) = oneshot::channel();
        let wake = Arc::new(Notify::new());
        let mut state = self.state.lock();
        state.current = Some(Current { number, wake: Arc::clone(&wake), _kept: kept });
        if state.unsent.is_none() {
            state.unsent = state.sent.clone();
        }
        state.lamented = false;
        hub.deliver(PeerEvent::Reachable(self.id, true));
        Installed { number, wake, replaced }
    }

    /// A connection has ended. If it was the one in use, the member is out of reach.
    fn ended(self: &Arc<Self>, hub: &Arc<Hub>, number: u64) {
        let mut state = self.state.lock();
        if state.current.as_ref().is_none_or(|current| current.number != number) {
            return;
        }
        state.current = None;
        hub.deliver(PeerEvent::Reachable(self.id, false));
        if self.has_news(&state) {
            self.dial(hub, state);
        }
    }

    /// The number of the connection in use, unless the member is being called.
    fn connected(&self) -> Option<u64> {
        let state = self.state.lock();
        state.current.as_ref().filter(|_| !state.dialling).map(|current| current.number)
    }

    /// Ends the connection in use.
    fn let_go(&self, hub: &Hub) {
        if self.state.lock().current.take().is_some() {
            hub.deliver(PeerEvent::Reachable(self.id, false));
        }
    }

    /// Whether the member is to be called because there is something to tell it. A stranger calls by itself, and
    /// may never come again.
    fn has_news(&self, state: &State) -> bool {
        !self.stranger && state.current.is_none() && state.unsent.is_some()
    }

    /// The next message for connection `number`, while that is in use.
    fn take(&self, number: u64) -> Option<Bytes> {
        let mut state = self.state.lock();
        if state.current.as_ref().is_none_or(|current| current.number != number) {
            return None;
        }
        let message = state.unsent.take()?;
        state.sent = Some(message.clone());
        Some(message)
    }

    /// Where the member may be found, best guess first.
    fn places(&self, hub: &Hub, told: Option<Endpoint>) -> Vec<Endpoint> {
        let lines = hub.member(self.id).into_iter().flat_map(|member| &member.addresses);
        let lines = lines.map(|address| Endpoint { host: address.host.clone(), port: address.election_port });
        let mut places: Vec<Endpoint> = told.into_iter().collect();
        for place in lines {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }
}

/// A connection that has become the one in use.
struct Installed {
    number: u64,
    wake: Arc<Notify>,
    replaced: oneshot::Receiver<()>,
}

/// See [`Peers::notify`](super::Peers::notify).
pub(super) fn notify(hub: &Arc<Hub>, to: ServerId, vote: &Notification) {
    let Some(mailbox) = hub.election.mailbox(to) else { return };
    let mut message = BytesMut::new();
    message.put_i32(0);
    vote.encode(&mut message);
    let length = message.len() as i32 - 4;
    message[..4].copy_from_slice(&length.to_be_bytes());
    let mut state = mailbox.state.lock();
    if mailbox.stranger && state.current.is_none() && !state.dialling {
        return;
    }
    state.unsent = Some(message.freeze());
    match &state.current {
        Some(current) => current.wake.notify_one(),
        None => mailbox.dial(hub, state),
    }
}

/// See [`Peers::heard`](super::Peers::heard).
pub(super) fn heard(hub: &Hub, from: ServerId) {
    if let Some(mailbox) = hub.election.mailbox(from) {
        mailbox.room.add_permits(1);
    }
}

/// Dials one member until there is a connection or nothing to say.
async fn dial(hub: Arc<Hub>, mailbox: Arc<Mailbox>) {
    let patience = Duration::from_millis(hub.options.connect_timeout_ms);
    loop {
        let (pause, told) = {
            let mut state = mailbox.state.lock();
            let pause = state.pause;
            state.pause = (pause * 2).clamp(REDIAL_PAUSE, REDIAL_PAUSE_MAX);
            (pause, state.told.clone())
        };
        if !pause.is_zero() {
            tokio::select! { () = sleep(pause) => {} () = mailbox.hurry.notified() => {} }
        }
        if !still_wanted(&mailbox) {
            return;
        }
        mailbox.state.lock().dial_back = false;
        let places = mailbox.places(&hub, told);
        match say_hello(&hub, &places, patience).await {
            Ok((stream, peer)) if hub.options.my_id > mailbox.id => {
                let installed = mailbox.install(&hub);
                let asked_again = {
                    let mut state = mailbox.state.lock();
                    state.dialling = state.dial_back;
                    state.dialling
                };
                hub.spawn(exchange(
                    Arc::clone(&hub),
                    Arc::clone(&mailbox),
                    stream,
                    peer,
                    BytesMut::new(),
                    installed,
                ));
                if !asked_again {
                    return;
                }
            }
            Ok((stream, _)) => {
                // The larger id dials back.
                drop(stream);
                tokio::select! { () = sleep(DIAL_BACK_WAIT) => {} () = mailbox.hurry.notified() => {} }
            }
            Err(error) => {
                let first = !std::mem::replace(&mut mailbox.state.lock().lamented, true);
                if first {
                    tracing::info!(member = %mailbox.id, "no election connection, will go on trying: {error:#}");
                } else {
                    tracing::debug!(member = %mailbox.id, "no election connection: {error:#}");
                }
            }
        }
        if !still_wanted(&mailbox) {
            return;
        }
    }
}

/// Whether there is a reason to dial; if not, the dialler's task is over.
fn still_wanted(mailbox: &Mailbox) -> bool {
    let mut state = mailbox.state.lock();
    state.dialling = state.dial_back || mailbox.has_news(&state);
    state.dialling
}

async fn say_hello(
    hub: &Hub,
    places: &[Endpoint],
    patience: Duration,
) -> anyhow::Result<(TcpStream, SocketAddr)> {
    let mut stream = address::open(places, patience).await?;
    let peer = stream.peer_addr()?;
    let hello = &hub.election.hello;
    // A hello fits into any socket's empty buffer, so this is one write and one segment.
    let sent = timeout(patience, stream.write(hello)).await.context("the hello was not taken")??;
    if sent < hello.len() {
        bail!("only {sent} bytes of the hello were taken");
    }
    Ok((stream, peer))
}

/// Accepts connections for ever.
pub(super) async fn accept(hub: Arc<Hub>, listener: TcpListener) {
    let failures = Seldom::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => hub.spawn(greet(Arc::clone(&hub), stream, peer)),
            Err(error) => {
                if let Some(left_out) = failures.say(clock::now_ns()) {
                    tracing::warn!(%error, left_out, "cannot accept an election connection; trying again (raise `ulimit -Hn`?)");
                }
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Finds out who has dialled.
async fn greet(hub: Arc<Hub>, mut stream: TcpStream, peer: SocketAddr) {
    let patience = Duration::from_millis(hub.options.hello_timeout_ms);
    let mut buffer = BytesMut::with_capacity(512);
    let hello = read_hello(&mut stream, &mut buffer);
    let hello = hub.election.hellos.hear(peer.ip(), patience, hello).await;
    let welcome = hello.and_then(|hello| welcome(&hub, &hello));
    match welcome {
        Ok(Some((mailbox, installed))) => {
            let _ = stream.set_nodelay(true);
            exchange(hub, mailbox, stream, peer, buffer, installed).await;
        }
        Ok(None) => {}
        Err(error) => hub.election.hellos.complain("an election", peer, &error),
    }
}

async fn read_hello(stream: &mut TcpStream, buffer: &mut BytesMut) -> anyhow::Result<ElectionHello> {
    loop {
        if let Some((hello, length)) = ElectionHello::decode(buffer)? {
            buffer.advance(length);
            return Ok(hello);
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("closed after {} bytes of a hello", buffer.len());
        }
    }
}

/// Keeps a connection (`Some`) or lets it go and dials back.
fn welcome(hub: &Arc<Hub>, hello: &ElectionHello) -> anyhow::Result<Option<(Arc<Mailbox>, Installed)>> {
    let mine = hub.options.my_id;
    let id = match hello.sid {
        ANONYMOUS_OBSERVER => ServerId(hub.election.anonymous.fetch_sub(1, Ordering::Relaxed)),
        sid if sid < 0 => bail!("a hello from {sid}, expected an id of at least 0"),
        sid if sid == mine.0 => {
            bail!("a hello with this server's own id {sid}; give every member its own number in myid")
        }
        sid => ServerId(sid),
    };
    if id > mine || hello.sid == ANONYMOUS_OBSERVER {
        let install = |mailbox: &Arc<Mailbox>| {
            let installed = mailbox.install(hub);
            if mailbox.state.lock().dialling {
                mailbox.hurry.notify_one();
            }
            (Arc::clone(mailbox), installed)
        };
        return hub.election.enter(hub, id, install).map(Some);
    }
    let told = hello.addresses.first().map(|text| address::told(text)).transpose()?.flatten();
    hub.election.enter(hub, id, |mailbox| {
        let mut state = mailbox.state.lock();
        state.dial_back = true;
        state.told = told;
        mailbox.hurry.notify_one();
        mailbox.dial(hub, state);
    })?;
    Ok(None)
}

/// One connection's life, both directions at once.
async fn exchange(
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    mut stream: TcpStream,
    peer: SocketAddr,
    buffer: BytesMut,
    installed: Installed,
) {
    let Installed { number, wake, replaced } = installed;
    address::end_with_network(&stream);
    let (mut reader, mut writer) = stream.split();
    let ended = tokio::select! {
        biased;
        // Nobody sends: what ends the wait is that the sender is dropped.
        _ = replaced => Ok(()),
        ended = read_votes(&hub, &mailbox, &mut reader, buffer) => ended,
        ended = write_votes(&mailbox, number, &wake, &mut writer) => ended,
    };
    match ended {
        Ok(()) => tracing::debug!(member = %mailbox.id, %peer, "election connection ended"),
        Err(error) => {
            tracing::warn!(member = %mailbox.id, %peer, "closing an election connection: {error:#}");
        }
    }
    mailbox.ended(&hub, number);
}

/// Until the other side closes.
async fn read_votes(
    hub: &Hub,
    mailbox: &Mailbox,
    reader: &mut (impl AsyncRead + Unpin),
    mut buffer: BytesMut,
) -> anyhow::Result<()> {
    loop {
        while buffer.len() >= 4 {
            let length = i32::from_be_bytes(buffer[..4].try_into().expect("four bytes"));
            if length <= 0 || length as usize > NOTIFICATION_LIMIT {
                bail!("a message of {length} bytes, expected 1 to {NOTIFICATION_LIMIT}");
            }
            let length = length as usize;
            if buffer.len() < 4 + length {
                break;
            }
            match Notification::decode(&buffer[4..4 + length]) {
                Ok(vote) => {
                    // Nobody reads it here, it may be long, and a hundred of them may wait.
                    let vote = Notification { config: String::new(), ..vote };
                    if let Ok(permit) = mailbox.room.acquire().await {
                        permit.forget();
                    }
                    mailbox.state.lock().pause = Duration::ZERO;
                    hub.deliver(PeerEvent::Vote(mailbox.id, vote));
                }
                // As Apache's server does: a message of a form not known is not the connection's end.
                Err(error) => tracing::warn!(member = %mailbox.id, "skipping a vote: {error}"),
            }
            buffer.advance(4 + length);
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Until the connection fails.
async fn write_votes(
    mailbox: &Mailbox,
    number: u64,
    wake: &Notify,
    writer: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    loop {
        while let Some(message) = mailbox.take(number) {
            if let Err(error) = writer.write_all(&message).await {
                let mut state = mailbox.state.lock();
                state.unsent.get_or_insert(message);
                return Err(error.into());
            }
        }
        wake.notified().await;
    }
}
