//! Members and raw sockets on the loopback interface.

pub(crate) mod links;
mod votes;

use super::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use zoometry_wire::Zxid;
use zoometry_wire::peer::{ElectionHello, PacketKind, PeerState};

use crate::config::{MemberAddress, MemberRole};

/// For everything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// For everything that must not.
const QUIET: Duration = Duration::from_millis(300);

/// Ports that nobody listens on, outside of the range that outgoing connections use.
fn ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 700) as u16 * 20;
    std::array::from_fn(|_| {
        loop {
            let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
            if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// An ensemble's lines, for ids from 1.
fn lines(count: u64) -> BTreeMap<u64, Member> {
    let line = |id| {
        let [quorum_port, election_port] = ports();
        let address = MemberAddress { host: "127.0.0.1".into(), quorum_port, election_port };
        (id, Member { id, addresses: vec![address], role: MemberRole::Participant, client: None })
    };
    (1..=count).map(line).collect()
}

fn options(my_id: i64, members: &BTreeMap<u64, Member>) -> PeerOptions {
    PeerOptions {
        my_id: ServerId(my_id),
        members: members.clone(),
        listen_on_all: false,
        connect_timeout_ms: 2_000,
        quorum_connect_timeout_ms: 2_000,
        hello_timeout_ms: 5_000,
        packet_data_bytes_max: 4 << 20,
        outbox_bytes_max: LINK_OUTBOX_BYTES_MAX,
        store: StoreConfig::default(),
    }
}

fn election_port(members: &BTreeMap<u64, Member>, id: u64) -> u16 {
    members[&id].addresses[0].election_port
}

fn quorum_port(members: &BTreeMap<u64, Member>, id: u64) -> u16 {
    members[&id].addresses[0].quorum_port
}

/// A member under test: its links and what they report.
pub(crate) struct Desk {
    pub(crate) peers: Peers,
    events: UnboundedReceiver<PeerEvent>,
}

impl Desk {
    async fn start(options: PeerOptions) -> Self {
        let (sender, events) = unbounded_channel();
        let deliver = move |event| {
            let _ = sender.send(event);
        };
        Self { peers: Peers::start(options, deliver).await.expect("start"), events }
    }

    pub(crate) async fn next(&mut self) -> PeerEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an open channel")
    }

    async fn nothing(&mut self) {
        if let Ok(event) = timeout(QUIET, self.events.recv()).await {
            panic!("expected nothing, got {event:?}");
        }
    }

    async fn reachable(&mut self, id: i64, up: bool) {
        let event = self.next().await;
        assert!(
            matches!(event, PeerEvent::Reachable(ServerId(from), is) if from == id && is == up),
            "expected Reachable({id}, {up}), got {event:?}"
        );
    }

    /// The next vote's sender and logical clock; comings and goings are passed over.
    async fn vote(&mut self) -> (i64, i64) {
        loop {
            match self.next().await {
                PeerEvent::Vote(from, vote) => {
                    self.peers.heard(from);
                    return (from.0, vote.election_epoch);
                }
                PeerEvent::Reachable(..) => {}
                other => panic!("expected a vote, got {other:?}"),
            }
        }
    }

    fn notify(&self, to: i64, number: i64) {
        self.peers.notify(ServerId(to), vote(number));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.peers.stop();
    }
}

fn vote(number: i64) -> Notification {
    Notification {
        state: PeerState::Looking,
        leader: 3,
        zxid: Zxid(5),
        election_epoch: number,
        peer_epoch: 1,
        config: "server.1=127.0.0.1:1:2:participant\nversion=0".into(),
    }
}

fn framed(vote: &Notification) -> Vec<u8> {
    let mut body = bytes::BytesMut::new();
    vote.encode(&mut body);
    [(body.len() as i32).to_be_bytes().as_slice(), &body].concat()
}

/// A socket without any of this module behind it.
struct Raw(TcpStream);

impl Raw {
    async fn connect(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.expect("connect"))
    }

    async fn accept(listener: &TcpListener) -> Self {
        Self(timeout(PATIENCE, listener.accept()).await.expect("a connection in time").expect("accept").0)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("write");
    }

    async fn hello(&mut self, sid: i64, address: &str) {
        self.write(&ElectionHello { sid, addresses: vec![address.into()] }.to_bytes()).await;
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("bytes in time").expect("read");
        bytes
    }

    /// Reads a hello; there must be nothing behind it that belongs to it.
    async fn read_hello(&mut self) -> ElectionHello {
        let mut bytes = self.exactly(20).await;
        let length = i32::from_be_bytes(bytes[16..].try_into().unwrap());
        bytes.extend(self.exactly(length as usize).await);
        ElectionHello::decode(&bytes).unwrap().expect("a whole hello").0
    }

    async fn read_vote(&mut self) -> Notification {
        let length = i32::from_be_bytes(self.exactly(4).await.try_into().unwrap());
        Notification::decode(&self.exactly(length as usize).await).unwrap()
    }

    /// The other side closes without another byte.
    async fn ended(&mut self) {
        let mut bytes = Vec::new();
        // A reset is an end too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("an end in time");
        assert!(bytes.is_empty(), "{} bytes before the end", bytes.len());
    }
}
