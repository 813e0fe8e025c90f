//! Listening on one address, or on all that the machine has.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::config::Endpoint;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on an endpoint. [`Endpoint::ANY`] is every address, IPv6 as well where the machine has it, as for Java's
/// servers; clients that come by IPv4 are then seen with IPv6 addresses (`to_canonical` takes them back).
///
/// # Errors
/// A host that has no address, and what the system says to all of them.
pub async fn bind(endpoint: &Endpoint) -> io::Result<TcpListener> {
    if endpoint.host == Endpoint::ANY
        && let Ok(listener) = everywhere(endpoint.port)
    {
        return Ok(listener);
    }
    TcpListener::bind((endpoint.host.as_str(), endpoint.port)).await
}

fn everywhere(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    // A server that starts again finds its port free although old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    #[tokio::test]
    async fn every_address_is_of_both_kinds() {
        let any = Endpoint { host: Endpoint::ANY.into(), port: 0 };
        let listener = bind(&any).await.expect("a port");
        let port = listener.local_addr().expect("its number").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("by IPv4");
        let (_, peer) = listener.accept().await.expect("a client");
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok(), has_ipv6);
        let taken = bind(&Endpoint { host: Endpoint::ANY.into(), port }).await.expect_err("it is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn one_address_is_that_one() {
        let one = Endpoint { host: "127.0.0.1".into(), port: 0 };
        let address = bind(&one).await.expect("a port").local_addr().expect("its number");
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        assert!(bind(&Endpoint { host: "no.such.host.invalid".into(), port: 0 }).await.is_err());
    }
}
