//! Relays between the members of a local ensemble, so that members can be cut off from each other without root: only for workloads
//! that cut.
//!
//! For every member there are two listeners here, one before its quorum port and one before its election port, and these are what the
//! other members' zoo.cfg names. Who has connected is learnt from the first bytes, which name the sender in both protocols. A link
//! is cut by not relaying any more, in both directions, without closing anything: as in a network that drops packets, each side hears
//! nothing until its own timeouts end the wait. What was under way when the link was cut arrives when it is healed, as with TCP's
//! retransmissions. Unlike such a network, a connection opened during the cut is accepted, and then stays silent.
//!
//! A member that wins an election connection answers by connecting to the address that the other one has announced in its first
//! message (`QuorumCnxManager.InitialMessage`), so that address is replaced by the relay's. Clients are never relayed.

use super::local::Ports;
use anyhow::{Context, Result};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes relayed at once.
const CHUNK: usize = 64 * 1024;
/// A leader gets this long to listen for learners; as long as a learner tries that is refused.
const LISTEN_LIMIT: Duration = Duration::from_secs(4);
/// Longest list of addresses in the first message of an election connection.
const ADDRESSES_MAX: usize = 4096;

/// The relays of an ensemble; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Relays {
    ports: Vec<Ports>,
    /// One bit per member that is cut off from all others.
    cut: watch::Sender<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quorum,
    Election,
}

/// What a relay of one port knows.
#[derive(Clone)]
struct Route {
    to: usize,
    kind: Kind,
    real: SocketAddr,
    /// The relays' election ports, by member.
    elections: Vec<u16>,
    cut: watch::Receiver<u64>,
}

impl Route {
    /// Connects to the real port. A learner that is refused tries again for seconds, but gives its leader up when a connection that
    /// stood is closed, and a relay cannot refuse: so it waits for a leader that does not listen yet.
    async fn connect(&self) -> io::Result<TcpStream> {
        let deadline = Instant::now() + LISTEN_LIMIT;
        loop {
            match TcpStream::connect(self.real).await {
                Err(error)
                    if self.kind == Kind::Quorum
                        && error.kind() == io::ErrorKind::ConnectionRefused
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                done => return done,
            }
        }
    }
}

impl Relays {
    /// Listens for an ensemble with these real ports.
    pub(super) fn start(real: &[Ports]) -> Result<Relays> {
        let mut listeners = Vec::new();
        let mut ports = Vec::new();
        for own in real {
            let (quorum, election) = (listen()?, listen()?);
            let port = |listener: &std::net::TcpListener| Ok::<_, io::Error>(listener.local_addr()?.port());
            ports.push(Ports { client: own.client, quorum: port(&quorum)?, election: port(&election)? });
            listeners.push([(quorum, Kind::Quorum, own.quorum), (election, Kind::Election, own.election)]);
        }
        let (cut, watched) = watch::channel(0);
        let elections: Vec<u16> = ports.iter().map(|ports| ports.election).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            runtime.block_on(async move {
                for (to, of_member) in listeners.into_iter().enumerate() {
                    for (listener, kind, port) in of_member {
                        let Ok(listener) = TcpListener::from_std(listener) else { continue };
                        let real = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                        let route =
                            Route { to, kind, real, elections: elections.clone(), cut: watched.clone() };
                        tokio::spawn(accept(listener, route));
                    }
                }
                // Until nobody can cut any more.
                let mut watched = watched;
                while watched.changed().await.is_ok() {}
            });
        };
        std::thread::Builder::new().name("relays".into()).spawn(body).context("start the relays' thread")?;
        Ok(Relays { ports, cut })
    }

    /// By which ports members reach each other; client ports are the real ones.
    pub(super) fn ports(&self) -> &[Ports] {
        &self.ports
    }

    /// Cuts a member off from all others.
    pub(super) fn cut(&self, member: usize) {
        self.cut.send_modify(|cut| *cut |= 1 << member);
    }

    /// Lets it talk to all that are not cut off themselves.
    pub(super) fn heal(&self, member: usize) {
        self.cut.send_modify(|cut| *cut &= !(1 << member));
    }
}

fn listen() -> Result<std::net::TcpListener> {
    let listener =
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(listener: TcpListener, route: Route) {
    loop {
        match listener.accept().await {
            // A broken connection is its two ends' business.
            Ok((stream, _)) => drop(tokio::spawn(carry(stream, route.clone()))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, from its first byte to its last.
async fn carry(mut near: TcpStream, route: Route) -> io::Result<()> {
    near.set_nodelay(true)?;
    let (from, greeting) = match route.kind {
        Kind::Quorum => quorum_greeting(&mut near).await?,
        Kind::Election => election_greeting(&mut near, &route.elections).await?,
    };
    let bits = 1 << route.to | from.filter(|from| *from < 64).map_or(0, |from| 1 << from);
    let mut link = Link { bits, cut: route.cut.clone() };
    link.open().await?;
    let mut far = route.connect().await?;
    far.set_nodelay(true)?;
    far.write_all(&greeting).await?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // When one direction breaks, both are over; a clean end of one leaves the other open.
    tokio::try_join!(one_way(near_read, far_write, link.clone()), one_way(far_read, near_write, link))?;
    Ok(())
}

#[derive(Clone)]
struct Link {
    bits: u64,
    cut: watch::Receiver<u64>,
}

impl Link {
    /// Returns when the link is not cut.
    async fn open(&mut self) -> io::Result<()> {
        let bits = self.bits;
        self.cut.wait_for(|cut| cut & bits == 0).await.map_err(io::Error::other)?;
        Ok(())
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: Link) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        link.open().await?;
        let read = from.read(&mut buffer).await;
        // It may have been cut while we waited; neither bytes nor the news of an end get through then.
        link.open().await?;
        match read? {
            0 => return to.shutdown().await,
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

/// The first bytes of a learner's first packet: type, zxid, length of the data, and the learner's id in front of these.
async fn quorum_greeting(stream: &mut TcpStream) -> io::Result<(Option<usize>, Vec<u8>)> {
    let mut greeting = vec![0; 24];
    stream.read_exact(&mut greeting).await?;
    let id = i64::from_be_bytes(greeting[16..].try_into().expect("eight bytes"));
    Ok((index_of(id), greeting))
}

/// The first message of an election connection: a negative version, the sender's id, and its election addresses, here replaced by the
/// relay's; or the id alone, from members before 3.4.
async fn election_greeting(
    stream: &mut TcpStream,
    elections: &[u16],
) -> io::Result<(Option<usize>, Vec<u8>)> {
    let version = stream.read_i64().await?;
    let mut greeting = version.to_be_bytes().to_vec();
    if version >= 0 {
        return Ok((index_of(version), greeting));
    }
    let id = stream.read_i64().await?;
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).ok().filter(|length| *length <= ADDRESSES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the announced addresses are too long"))?;
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    let from = index_of(id);
    if let Some(port) = from.and_then(|from| elections.get(from)) {
        addresses = format!("127.0.0.1:{port}").into_bytes();
    }
    greeting.extend_from_slice(&id.to_be_bytes());
    greeting.extend_from_slice(&(addresses.len() as i32).to_be_bytes());
    greeting.extend_from_slice(&addresses);
    Ok((from, greeting))
}

/// `server.1` is the first of the list.
fn index_of(id: i64) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn member() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test]
    async fn a_cut_link_is_silent_and_what_was_sent_arrives_when_it_is_healed() {
        let (quorum, quorum_port) = member().await;
        let ports = |quorum| Ports { client: 1, quorum, election: 2 };
        let relays = Relays::start(&[ports(quorum_port), ports(3), ports(4)]).unwrap();
        // Member 3 joins member 1: FOLLOWERINFO with id 3.
        let mut learner = TcpStream::connect((Ipv4Addr::LOCALHOST, relays.ports()[0].quorum)).await.unwrap();
        let mut hello = vec![0, 0, 0, 11];
        hello.extend_from_slice(&0i64.to_be_bytes());
        hello.extend_from_slice(&20i32.to_be_bytes());
        hello.extend_from_slice(&3i64.to_be_bytes());
        learner.write_all(&hello).await.unwrap();
        let (mut leader, _) = quorum.accept().await.unwrap();
        let mut heard = vec![0; hello.len()];
        leader.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, hello);
        // Another member's cut is of no concern.
        relays.cut(1);
        learner.write_all(b"one").await.unwrap();
        let mut three = [0; 3];
        leader.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"one");
        relays.cut(2);
        tokio::time::sleep(Duration::from_millis(50)).await;
        leader.write_all(b"two").await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(150), learner.read_exact(&mut three)).await;
        assert!(silence.is_err(), "nothing gets through, and nothing is closed");
        relays.heal(2);
        learner.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"two");
        drop(leader);
        assert_eq!(learner.read(&mut three).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_address_that_a_member_announces_is_its_relay() {
        let (election, election_port) = member().await;
        let ports = |election| Ports { client: 1, quorum: 2, election };
        let relays = Relays::start(&[ports(election_port), ports(7)]).unwrap();
        let mut second = TcpStream::connect((Ipv4Addr::LOCALHOST, relays.ports()[0].election)).await.unwrap();
        second.write_i64(-65536).await.unwrap();
        second.write_i64(2).await.unwrap();
        second.write_i32(11).await.unwrap();
        second.write_all(b"127.0.0.1:7vote").await.unwrap();
        let (mut first, _) = election.accept().await.unwrap();
        assert_eq!((first.read_i64().await.unwrap(), first.read_i64().await.unwrap()), (-65536, 2));
        let announced = format!("127.0.0.1:{}", relays.ports()[1].election);
        assert_eq!(first.read_i32().await.unwrap() as usize, announced.len());
        let mut rest = vec![0; announced.len() + 4];
        first.read_exact(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), format!("{announced}vote"));
    }
}
