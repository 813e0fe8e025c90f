//! Takes clients in: the accept loop, its limits, and a task for each connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;

use crate::conn::{self, Conn, Phase};
use crate::shared::Shared;
use crate::stats::Counter;

/// Wait before accepting again when the process has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` turns true.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (reader, writer) = stream.into_split();
                    let outbox_limit = shared.config.own.max_outbox_bytes;
                    admit(&shared, Conn::new(shared.conns.next_id(), peer, writer, outbox_limit), reader);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client; trying again (raise `ulimit -n`?)");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            _ = stop.changed() => return,
        }
    }
}

fn admit(shared: &Arc<Shared>, conn: Arc<Conn>, reader: OwnedReadHalf) {
    let limit = |limit: Option<u32>| limit.map_or(0, |limit| limit as usize);
    let client = &shared.config.client;
    let (per_address, total) = (limit(client.max_per_ip), limit(client.max_total));
    if let Err(refused) = shared.conns.admit(&conn, per_address, total) {
        shared.stats.add(Counter::ConnectionsRejected, 1);
        tracing::warn!(peer = %conn.peer, "refusing a connection: {refused}");
        return;
    }
    shared.stats.connection_opened();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let patience = Duration::from_millis(shared.config.client.sessionless_timeout_ms);
        let moved = conn::serve(Arc::clone(&shared), Arc::clone(&conn), reader);
        tokio::select! {
            () = moved => {}
            () = expect_a_session(&conn, patience) => {
                shared.stats.add(Counter::SessionlessExpired, 1);
                tracing::debug!(peer = %conn.peer, "closing a connection that never asked for a session");
            }
        }
        let abandoned = conn.desk().abandon();
        shared.stats.outstanding_add(-(abandoned as i64));
        shared.stats.connection_closed();
        shared.store.read().watches().remove_watcher(conn.id);
        shared.conns.release(&conn);
    });
}

/// Ends when the connection has had its time and still has not asked for a session.
async fn expect_a_session(conn: &Conn, patience: Duration) {
    tokio::time::sleep(patience).await;
    if conn.desk().phase == Phase::New {
        return;
    }
    std::future::pending::<()>().await;
}
