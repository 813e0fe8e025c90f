//! Takes clients in: the accept loop, its limits, and a task for each connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;

use crate::config::{Config, Ensemble};
use crate::conn::{self, Conn, Phase};
use crate::seldom::Seldom;
use crate::shared::{ConnLimits, Shared};
use crate::stats::Counter;
use crate::{clock, descriptors, peers};

/// Wait before accepting again when the process has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` turns true.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let limits = limits(&shared.config);
    let (refusals, failures) = (Seldom::default(), Seldom::default());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Who comes by IPv4 is shown so, on a socket of both kinds as well.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    if shared.config.client.tcp_keep_alive
                        && let Err(error) = SockRef::from(&stream).set_keepalive(true)
                    {
                        tracing::debug!(%peer, %error, "no keepalive");
                    }
                    let (reader, writer) = stream.into_split();
                    let outbox_limit = shared.config.own.max_outbox_bytes;
                    let unsent = shared.conns.unsent();
                    let conn = Conn::new(shared.conns.next_id(), peer, writer, outbox_limit, unsent);
                    if let Err(refused) = shared.conns.admit(&conn, limits) {
                        shared.stats.add(Counter::ConnectionsRejected, 1);
                        if let Some(left_out) = refusals.say(clock::now_ns()) {
                            tracing::warn!(%peer, left_out, "refusing a connection: {refused}");
                        }
                    } else {
                        serve(&shared, conn, reader);
                    }
                }
                Err(error) => {
                    if let Some(left_out) = failures.say(clock::now_ns()) {
                        tracing::warn!(%error, left_out, "cannot accept a client; trying again (raise `ulimit -Hn`?)");
                    }
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            _ = stop.changed() => return,
        }
    }
}

/// How many clients may be connected.
fn limits(config: &Config) -> ConnLimits {
    let limit = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
    let peers = match &config.ensemble {
        Ensemble::Standalone { .. } => 0,
        Ensemble::Member(membership) => peers::descriptors_max(membership.members.len()),
    };
    ConnLimits {
        per_address: limit(config.client.max_per_ip),
        total: limit(config.client.max_total),
        descriptors: descriptors::limit().map_or(usize::MAX, |limit| descriptors::for_clients(limit, peers)),
    }
}

/// Starts the task of a connection that was taken in.
fn serve(shared: &Arc<Shared>, conn: Arc<Conn>, reader: OwnedReadHalf) {
    shared.stats.connection_opened();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let patience = Duration::from_millis(shared.config.client.sessionless_timeout_ms);
        let moved = conn::serve(Arc::clone(&shared), Arc::clone(&conn), reader);
        tokio::select! {
            () = moved => {}
            () = silence(&conn, patience) => {
                shared.stats.add(Counter::SessionlessExpired, 1);
                tracing::debug!(peer = %conn.peer, "closing a connection that never asked for a session, or is silent");
            }
        }
        let abandoned = conn.desk().abandon();
        shared.stats.outstanding_add(-(abandoned as i64));
        shared.stats.connection_closed();
        shared.store.read().watches().remove_watcher(conn.id);
        shared.conns.release(&conn);
    });
}

/// Ends when nobody is there: the connection has had its time and still has not asked for a session, or nothing has
/// been heard on it for longer than its session may be silent.
async fn silence(conn: &Conn, patience: Duration) {
    tokio::time::sleep(patience).await;
    if conn.desk().phase == Phase::New {
        return;
    }
    loop {
        let patience = conn.desk().patience(clock::now_ns());
        if patience.is_zero() {
            return;
        }
        tokio::time::sleep(patience).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::tests::conn;
    use zoometry_wire::SessionId;

    const TIMEOUT_MS: i32 = 100;

    /// Its session may have moved to another member, which hears of the client; this one may not even be told
    /// that the connection is dead.
    #[tokio::test]
    async fn a_connection_on_which_nothing_is_heard_ends() {
        let conn = conn(100).await;
        let opened_ns = clock::now_ns();
        conn.desk().open(SessionId(1), TIMEOUT_MS, opened_ns);
        tokio::time::timeout(Duration::from_secs(20), silence(&conn, Duration::ZERO)).await.expect("its end");
        assert!(clock::now_ns() - opened_ns > 100_000_000, "its session may still have lived");
    }
}
