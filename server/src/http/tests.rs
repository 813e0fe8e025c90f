//! The limits, from outside.

use std::net::SocketAddr;

use super::*;

/// Sends `request` and reads to the end.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read to the end");
    String::from_utf8(answer).expect("text")
}

async fn start(handler: impl Fn(Target<'_>) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, handler));
    address
}

fn echo(target: Target<'_>) -> Answer {
    match target.path {
        "/there" => Answer::ok("text/plain", format!("query={}", target.query)),
        _ => Answer::plain(404, "not here"),
    }
}

#[tokio::test]
async fn answers_by_request_line() {
    let address = start(echo).await;
    let table = [
        ("GET /there HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "query="),
        ("GET /there?a=b%20c HTTP/1.0\r\n\r\n", "200 OK", "query=a=b%20c"),
        ("GET /there HTTP/1.1\n\n", "200 OK", "query="),
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found", "not here\n"),
        ("GET /there/ HTTP/1.1\r\n\r\n", "404 Not Found", "not here\n"),
        (
            "POST /there HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "405 Method Not Allowed",
            "only GET is served\n",
        ),
        ("GET there HTTP/1.1\r\n\r\n", "400 Bad Request", "expected: GET <path> HTTP/1.1\n"),
        ("GET /there\r\n\r\n", "400 Bad Request", "expected: GET <path> HTTP/1.1\n"),
        ("hello\r\n\r\n", "400 Bad Request", "expected: GET <path> HTTP/1.1\n"),
        ("GET /there SPDY/3\r\n\r\n", "400 Bad Request", "expected: GET <path> HTTP/1.1\n"),
    ];
    for (request, status, body) in table {
        let answer = exchange(address, request.as_bytes()).await;
        let (head, found) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{request:?}: {head}");
        assert_eq!(found, body, "{request:?}");
    }
}

#[tokio::test]
async fn head_has_no_body() {
    let address = start(echo).await;
    let answer = exchange(address, b"HEAD /there HTTP/1.1\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n") && answer.contains("Content-Length: 6\r\n"), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let address = start(echo).await;
    let answer = exchange(address, b"GET /\xff\xfe HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let address = start(echo).await;
    let mut request = b"GET /there HTTP/1.1\r\nX: ".to_vec();
    request.resize(MAX_HEAD_BYTES + 2000, b'x');
    let answer = exchange(address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_dropped() {
    let address = start(echo).await;
    let answer = exchange(address, b"GET /there HTTP").await;
    assert_eq!(answer, "", "closed behind HEAD_TIMEOUT");
}

#[tokio::test]
async fn more_connections_than_places_are_refused_and_places_come_back() {
    let address = start(echo).await;
    let mut waiting = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        waiting.push(TcpStream::connect(address).await.expect("connected"));
    }
    // The ones that wait were accepted in order, so this one finds no place.
    let mut refused = TcpStream::connect(address).await.expect("connected");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(waiting);
    loop {
        let answer = exchange(address, b"GET /there HTTP/1.1\r\n\r\n").await;
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_of_megabytes_arrives_whole() {
    let address = start(|_| Answer::ok("text/plain", "x".repeat(3 << 20))).await;
    let answer = exchange(address, b"GET / HTTP/1.1\r\n\r\n").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert_eq!(body.len(), 3 << 20);
}
