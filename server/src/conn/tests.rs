use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::*;

pub(crate) async fn conn(outbox_limit: usize) -> Arc<Conn> {
    conn_of(outbox_limit, &Arc::new(Unsent::new(1 << 30))).await
}

async fn conn_of(outbox_limit: usize, unsent: &Arc<Unsent>) -> Arc<Conn> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("its number");
    let (client, accepted) = tokio::join!(TcpStream::connect(here), listener.accept());
    let peer = client.expect("a connection").local_addr().expect("its number");
    let (_, writer) = accepted.expect("the same").0.into_split();
    Conn::new(WatcherId(1), peer, writer, outbox_limit, unsent)
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

/// A watch event behind a long reply must not cost the client its connection: it has asked for both.
#[tokio::test]
async fn one_reply_may_be_longer_than_the_outbox() {
    let (short, conn) = (conn(100).await, conn(100).await);
    let mut desk = short.desk();
    desk.open(SessionId(1), 1000, 0);
    desk.reply(1, Zxid(1), |out| out.resize(out.len() + OUTBOX_PAUSE / 2, 0));
    desk.notify(&[0; 60]);
    assert_eq!(desk.phase, Phase::Closing, "half a megabyte is more than a hundred bytes");
    let mut desk = conn.desk();
    desk.open(SessionId(1), 1000, 0);
    desk.reply(1, Zxid(1), |out| out.resize(out.len() + OUTBOX_PAUSE + 1, 0));
    desk.notify(&[0; 60]);
    assert_eq!(desk.phase, Phase::Open);
    desk.notify(&[0; 60]);
    assert_eq!(desk.phase, Phase::Closing);
}

/// Within their own limits, and together beyond the one of all: whoever holds more than its share goes.
#[tokio::test]
async fn of_many_that_do_not_read_the_worst_are_closed() {
    let unsent = Arc::new(Unsent::new(1 << 20));
    let (mut small, mut large) = (conn_of(16 << 20, &unsent).await, conn_of(16 << 20, &unsent).await);
    for (conn, bytes) in [(&mut small, 300 << 10), (&mut large, 900 << 10)] {
        let mut desk = conn.desk();
        desk.open(SessionId(1), 1000, 0);
        assert!(desk.has_room(10, 0));
        desk.reply(1, Zxid(1), |out| out.resize(out.len() + bytes, 0));
        desk.book_held();
        assert!(!unsent.is_scarce() || !desk.has_room(10, 0), "no more is asked for");
    }
    assert!(unsent.is_over());
    assert!(!small.desk().give_way());
    assert!(large.desk().give_way());
    assert_eq!((small.desk().phase, large.desk().phase), (Phase::Open, Phase::Closing));
    assert!((300 << 10..310 << 10).contains(&unsent.bytes()), "its memory is free again: {}", unsent.bytes());
    drop((small, large));
    assert_eq!(unsent.bytes(), 0);
}
