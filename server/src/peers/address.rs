//! Where members are: binding this one's ports, and opening connections to the others'.
//!
//! Keepalive is switched on for all of these connections, so that a peer that vanished without a word is
//! found out by the system where no ping would. Accepted sockets have it from their listener.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use zoometry_wire::jute::Malformed;

use super::PeerOptions;
use crate::config::Endpoint;

/// Connections that wait to be accepted, for the system.
const BACKLOG: u32 = 256;

/// Both ports, on every address that this member's line names.
pub(super) struct Listeners {
    pub(super) election: Vec<TcpListener>,
    pub(super) quorum: Vec<TcpListener>,
}

/// Binds this member's ports.
pub(super) async fn listen(options: &PeerOptions) -> anyhow::Result<Listeners> {
    let id = options.my_id;
    let me = u64::try_from(id.0).ok().and_then(|id| options.members.get(&id));
    let me = me.ok_or_else(|| anyhow!("server.{id} is missing, expected this server's own line"))?;
    let mut listeners = Listeners { election: Vec::new(), quorum: Vec::new() };
    for address in &me.addresses {
        let host = if options.listen_on_all { None } else { Some(address.host.as_str()) };
        let what = |port: &str| format!("cannot listen on the {port} port of server.{id}");
        let election = bind(host, address.election_port).await.with_context(|| what("election"))?;
        listeners.election.push(election);
        let quorum = bind(host, address.quorum_port).await.with_context(|| what("quorum"))?;
        listeners.quorum.push(quorum);
    }
    Ok(listeners)
}

/// Binds one port; no host means every address of the machine.
async fn bind(host: Option<&str>, port: u16) -> anyhow::Result<TcpListener> {
    let Some(host) = host else {
        let v6 = TcpSocket::new_v6().and_then(|socket| open_port(socket, ([0u16; 8], port).into()));
        // A machine without IPv6 has no such wildcard.
        let bound = match v6 {
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                TcpSocket::new_v4().and_then(|socket| open_port(socket, ([0u8; 4], port).into()))
            }
            bound => bound,
        };
        return bound.with_context(|| refusal(&format!("every address, port {port}"), "the port"));
    };
    let name = Endpoint { host: host.into(), port };
    let address = lookup_host((host, port))
        .await
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| anyhow!("{host:?} has no address; correct the server line or the name service"))?;
    let socket = socket_for(address)?;
    open_port(socket, address).with_context(|| refusal(&name.to_string(), "the address and port"))
}

fn refusal(place: &str, what: &str) -> String {
    format!(
        "binding {place} failed; free {what} or change the server line on every member \
         (quorumListenOnAllIPs=true if the address is not this machine's own)"
    )
}

fn open_port(socket: TcpSocket, address: SocketAddr) -> std::io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn socket_for(address: SocketAddr) -> std::io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// How long one address may take to accept a connection. The system repeats what was not answered after 1, 3, 7 s and so
/// on: when a network that was cut is whole again, nobody should have to wait for that.
const ACCEPTING_MAX: Duration = Duration::from_secs(1);

/// How long what was sent may stay without the other system's word that it has arrived. The system would repeat it
/// ever more seldom, for a quarter of an hour, and a member that comes back would hear of an election last.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(1);

/// Ends a connection as soon as the network does not carry it any more, if something is to be carried.
pub(super) fn end_with_network(stream: &TcpStream) {
    // Where the system does not know this it takes longer.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNACKNOWLEDGED_MAX);
}

/// Has the system repeat at least every second what the other one has not acknowledged. By itself it waits twice as
/// long every time, and after a cut of four seconds everybody's writes would wait two and a half more. Linux knows
/// this since 6.15; an older one, or another system, goes on as it does.
pub(super) fn repeat_soon(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        const TCP_RTO_MAX_MS: libc::c_int = 44;
        let pause_max_ms: libc::c_int = 1000;
        let value = (&raw const pause_max_ms).cast();
        let length = size_of_val(&pause_max_ms) as libc::socklen_t;
        // SAFETY: the descriptor is open as long as the stream is borrowed, and the value outlives the call.
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, value, length) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// Opens a connection to the first of the places that takes one, each within `patience`. The error is the
/// last one's.
pub(super) async fn open(places: &[Endpoint], patience: Duration) -> anyhow::Result<TcpStream> {
    let mut last = anyhow!("no address is known");
    for place in places {
        match tokio::time::timeout(patience, open_one(place)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = anyhow!("{place}: {error}"),
            Err(_) => last = anyhow!("{place}: no answer within {} ms", patience.as_millis()),
        }
    }
    Err(last)
}

async fn open_one(place: &Endpoint) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((place.host.as_str(), place.port)).await? {
        let socket = socket_for(address)?;
        socket.set_keepalive(true)?;
        match tokio::time::timeout(ACCEPTING_MAX, socket.connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The address in a hello, if it can be dialled: a wildcard says nothing about where its owner is.
pub(super) fn told(text: &str) -> Result<Option<Endpoint>, Malformed> {
    let malformed = || Malformed { what: "election address", offset: 20 };
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse::<u16>().map_err(|_| malformed())?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let wildcard = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let dialable = !host.is_empty() && !wildcard && port != 0;
    Ok(dialable.then(|| Endpoint { host: host.into(), port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system whose queue is full does not answer, as one that the network has lost.
    #[tokio::test]
    async fn the_systems_own_patience_is_not_waited_for() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let full = socket.listen(1).expect("a port that listens");
        let port = full.local_addr().expect("its address").port();
        let place = [Endpoint { host: "127.0.0.1".into(), port }];
        let patience = Duration::from_secs(60);
        let mut held = Vec::new();
        let error = loop {
            match tokio::time::timeout(patience / 4, open(&place, patience)).await.expect("long before that")
            {
                Ok(stream) => held.push(stream),
                Err(error) => break error.to_string(),
            }
            assert!(held.len() < 100, "nobody accepts, and yet there is room");
        };
        assert!(error.contains("timed out"), "{error}");
    }
}
