use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::*;

pub(crate) async fn conn(outbox_limit: usize) -> Arc<Conn> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("its number");
    let (client, accepted) = tokio::join!(TcpStream::connect(here), listener.accept());
    let peer = client.expect("a connection").local_addr().expect("its number");
    let (_, writer) = accepted.expect("the same").0.into_split();
    Conn::new(WatcherId(1), peer, writer, outbox_limit)
}

/// A client that is gone, or does not read, would fill the member's memory with what happens to others.
#[tokio::test]
async fn a_connection_that_is_ending_gets_no_more_events() {
    let conn = conn(100).await;
    conn.desk().notify(b"event");
    assert_eq!(&conn.desk().out[..], b"event");
    conn.close();
    conn.desk().notify(b"event");
    assert_eq!(&conn.desk().out[..], b"event");
}

#[tokio::test]
async fn silence_is_not_held_against_a_connection_that_waits_for_an_answer() {
    const SECOND_NS: u64 = 1_000_000_000;
    let conn = conn(100).await;
    let mut desk = conn.desk();
    desk.open(SessionId(1), 1000, 10 * SECOND_NS);
    assert_eq!(desk.patience(11 * SECOND_NS), Duration::from_secs(1));
    let write = PendingWrite { xid: 1, op: OpCode::SetData, received_ns: 11 * SECOND_NS };
    desk.pipeline.push_write(write, 10);
    assert!(!desk.patience(60 * SECOND_NS).is_zero());
    desk.pipeline.complete_write(|_| true);
    assert!(desk.patience(60 * SECOND_NS).is_zero());
}
