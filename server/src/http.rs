//! A very small HTTP/1.1 server for scrapers and operators: GET only, one request per connection.
//!
//! Limits, each with its answer: a head over [`MAX_HEAD_BYTES`] → 431; no complete head within
//! [`HEAD_TIMEOUT`] → the connection is closed; more than [`MAX_CONNECTIONS`] at once → 503; an answer not
//! taken within [`WRITE_TIMEOUT`] → closed. Bodies of requests are not read. No TLS, no compression.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::clock;
use crate::seldom::Seldom;

/// Longest request head, request line included.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Requests served at once.
pub const MAX_CONNECTIONS: usize = 16;
/// A head must have arrived within this.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer must have been taken within this.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest of a refused request is read and thrown away, so that the refusal arrives.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, 404, …
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// 200.
    pub fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body }
    }

    /// Something else, with a sentence.
    pub fn plain(status: u16, sentence: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{sentence}\n") }
    }
}

/// A request's target, split at the `?`; neither part is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Starts with `/`.
    pub path: &'a str,
    /// Without the `?`; empty if there is none.
    pub query: &'a str,
}

/// Accepts and answers until the future is dropped. `handler` runs on the connection's task.
pub async fn serve(listener: TcpListener, handler: impl Fn(Target<'_>) -> Answer + Send + Sync + 'static) {
    let handler = Arc::new(handler);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let failures = Seldom::default();
    // Also ends the connections' tasks when this future is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come back instead of spinning.
                if let Some(left_out) = failures.say(clock::now_ns()) {
                    tracing::warn!(%error, left_out, "HTTP accept failed");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            drop(refuse_busy(stream));
            continue;
        };
        let handler = handler.clone();
        tasks.spawn(async move {
            let _place = place;
            one_request(stream, &*handler).await;
        });
    }
}

/// Writes a 503 as far as the socket's buffer takes it without waiting.
fn refuse_busy(stream: TcpStream) -> std::io::Result<usize> {
    stream.try_write(render(&Answer::plain(503, "too many requests at once; try again"), false).as_bytes())
}

async fn one_request(mut stream: TcpStream, handler: &(impl Fn(Target<'_>) -> Answer + Send + Sync)) {
    let Some(head) = within(HEAD_TIMEOUT, read_head(&mut stream)).await else { return };
    let (answer, with_body) = match &head {
        Head::Complete(head) => respond(head, handler),
        Head::TooLong => (Answer::plain(431, "the request's head is too long"), true),
        Head::Closed => return,
    };
    let text = render(&answer, with_body);
    let sent = within(WRITE_TIMEOUT, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    });
    if matches!(sent.await, Some(Ok(()))) {
        // Closing with unread input would reset the connection and could take the answer with it.
        let mut scrap = [0; 1024];
        within(DRAIN_TIMEOUT, async { while matches!(stream.read(&mut scrap).await, Ok(n) if n > 0) {} })
            .await;
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

enum Head {
    Complete(Vec<u8>),
    TooLong,
    Closed,
}

async fn read_head(stream: &mut TcpStream) -> Head {
    let mut head = Vec::with_capacity(512);
    let mut part = [0; 1024];
    loop {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return Head::Closed,
            Ok(n) => head.extend_from_slice(&part[..n]),
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n") {
            return Head::Complete(head);
        }
        if head.len() > MAX_HEAD_BYTES {
            return Head::TooLong;
        }
    }
}

/// The answer, and whether its body is sent (not for HEAD).
fn respond(head: &[u8], handler: &impl Fn(Target<'_>) -> Answer) -> (Answer, bool) {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return (Answer::plain(400, "the request line is not text"), true);
    };
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, protocol] = parts[..] else {
        return (Answer::plain(400, "expected: GET <path> HTTP/1.1"), true);
    };
    if !protocol.starts_with("HTTP/1.") || !target.starts_with('/') {
        return (Answer::plain(400, "expected: GET <path> HTTP/1.1"), true);
    }
    if !matches!(method, "GET" | "HEAD") {
        return (Answer::plain(405, "only GET is served"), true);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (handler(Target { path, query }), method == "GET")
}

fn render(answer: &Answer, with_body: bool) -> String {
    let reason = match answer.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let allow = if answer.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n{}",
        answer.status,
        answer.content_type,
        answer.body.len(),
        if with_body { answer.body.as_str() } else { "" }
    )
}

#[cfg(test)]
pub(crate) mod tests;
