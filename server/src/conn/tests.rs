use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn conn(outbox_limit: usize) -> Arc<Conn> {
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
