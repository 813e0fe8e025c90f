//! One session for the work around a run: preparing data, verifying, cleaning up.
//!
//! Requests are pipelined, at most [`WINDOW`] outstanding and [`WINDOW_BYTES`] buffered; replies come back in order. Unlike the load
//! it stops at the first lost connection: what surrounds a run either succeeds or says why not.

use super::encode;
use crate::credentials::Credentials;
use crate::session::{Event, ProtocolError, Session, State, Tick};
use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zoometry_wire::request::CreateMode;
use zoometry_wire::{ErrorCode, OpCode, Request, Response, SessionId, Stat, Zxid};

/// Requests outstanding at most; Apache throttles a server beyond 1000.
pub(crate) const WINDOW: usize = 500;
/// Bytes of requests in the out buffer, above which no further are made.
pub(crate) const WINDOW_BYTES: usize = 1 << 20;
/// A member gets this long to accept and to answer the connect frame, before the next is tried.
const ATTEMPT: Duration = Duration::from_secs(3);
/// A member that answers none of the outstanding requests for so long is given up, though it may still answer pings: it has no quorum,
/// or its disk hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connected session.
pub(crate) struct Client {
    stream: TcpStream,
    session: Session<u64>,
    out: BytesMut,
    input: BytesMut,
    started: Instant,
    answer_limit: Duration,
    /// Whom it is connected to, for messages.
    pub(crate) address: SocketAddr,
}

/// What the cluster answered to something that had to succeed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", error_name(*.code))]
pub(crate) struct Refused {
    /// What was asked.
    pub(crate) what: String,
    /// The error number.
    pub(crate) code: i32,
}

/// An error number of a reply, in words.
pub(crate) fn error_name(err: i32) -> String {
    ErrorCode::from_code(err).map_or_else(|| format!("error {err}"), |code| code.to_string())
}

impl Client {
    /// Connects to the first of `members` that lets it, trying them in turn until `deadline`, or until they have all
    /// answered what no ZooKeeper server says.
    pub(crate) async fn connect(
        members: &[SocketAddr],
        timeout_ms: i32,
        deadline: Instant,
        credentials: &Credentials,
    ) -> Result<Client> {
        let mut last = anyhow!("no members were named");
        let mut pause = Duration::from_millis(20);
        loop {
            let mut strangers = 0;
            for address in members {
                match tokio::time::timeout(ATTEMPT, Self::attempt(*address, timeout_ms, credentials)).await {
                    Ok(Ok(client)) => return Ok(client),
                    Ok(Err(error)) => {
                        strangers += usize::from(error.is::<ProtocolError>());
                        last = error;
                    }
                    Err(_) => last = anyhow!("{address}: no answer to the connect frame within {ATTEMPT:?}"),
                }
            }
            if Instant::now() >= deadline || strangers == members.len() {
                return Err(last.context("could not open a session"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn attempt(address: SocketAddr, timeout_ms: i32, credentials: &Credentials) -> Result<Client> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            session: Session::new(timeout_ms).with_credentials(credentials.clone()),
            out: BytesMut::new(),
            input: BytesMut::with_capacity(64 * 1024),
            started: Instant::now(),
            answer_limit: ANSWER_LIMIT,
            address,
        };
        let now_ns = client.now_ns();
        client.session.connect(now_ns, &mut client.out);
        while client.session.state() == State::Connecting {
            client.exchange(&mut |_, _, _| Ok(())).await?;
        }
        if client.session.state() != State::Attached {
            bail!("{address} refused a new session");
        }
        Ok(client)
    }

    /// The session's id.
    pub(crate) fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Keeps the session, and does nothing else, until its connection is lost.
    pub(crate) async fn stay(&mut self) -> Result<()> {
        loop {
            let now_ns = self.now_ns();
            self.session.wrote(now_ns);
            self.exchange(&mut |_, _, _| Ok(())).await?;
        }
    }

    /// The highest zxid that it was shown.
    pub(crate) fn last_zxid(&self) -> Zxid {
        self.session.last_zxid()
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Writes everything, reads once, reports the replies as (index, error number, body).
    async fn exchange(&mut self, reply: &mut impl FnMut(u64, i32, &[u8]) -> Result<()>) -> Result<()> {
        let address = self.address;
        let third = Duration::from_millis(self.session.timeout_ms().max(3) as u64 / 3);
        while self.out.has_remaining() {
            // Both ways at once: a server that cannot get rid of its replies stops reading.
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                written = writer.write_buf(&mut self.out) => {
                    written.with_context(|| format!("write to {address}"))?;
                }
                read = reader.read_buf(&mut self.input) => {
                    if read.with_context(|| format!("read from {address}"))? == 0 {
                        bail!("{address} closed the connection");
                    }
                    self.take(reply)?;
                }
                // One that was stopped reads nothing and says nothing.
                () = tokio::time::sleep(third) => self.tick()?,
            }
        }
        // Long waits (a slow fsync) need pings.
        match tokio::time::timeout(third.min(self.answer_limit), self.stream.read_buf(&mut self.input)).await
        {
            Err(_) => self.tick(),
            Ok(read) => {
                if read.with_context(|| format!("read from {address}"))? == 0 {
                    bail!("{address} closed the connection");
                }
                self.take(reply)
            }
        }
    }

    fn tick(&mut self) -> Result<()> {
        let now_ns = self.now_ns();
        if self.session.tick(now_ns, &mut self.out) == Tick::Silent {
            bail!("{} has not answered for two thirds of the session timeout", self.address);
        }
        Ok(())
    }

    fn take(&mut self, reply: &mut impl FnMut(u64, i32, &[u8]) -> Result<()>) -> Result<()> {
        let mut outcome = Ok(());
        let now_ns = self.now_ns();
        let taken = self.session.receive(now_ns, &self.input, |event| {
            if let (Ok(()), Event::Reply(r)) = (&outcome, event) {
                outcome = reply(r.tag, r.err, r.body);
            }
        });
        let taken = match taken {
            Err(refused @ ProtocolError::AuthFailed(_)) => {
                return Err(anyhow::Error::from(refused).context(self.address.to_string()));
            }
            taken => taken.with_context(|| format!("{} broke the protocol", self.address))?,
        };
        self.input.advance(taken);
        outcome
    }

    /// Sends `count` requests, pipelined. `make(i)` appends the i-th body and names its operation; `reply(i, err, body)` sees the
    /// answers in order and may stop with an error.
    pub(crate) async fn pipeline(
        &mut self,
        count: u64,
        mut make: impl FnMut(u64, &mut BytesMut) -> OpCode,
        mut reply: impl FnMut(u64, i32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut made = 0;
        let answered = AtomicU64::new(0);
        let mut body = BytesMut::new();
        let mut counted = |index: u64, err: i32, bytes: &[u8]| {
            answered.fetch_add(1, Ordering::Relaxed);
            reply(index, err, bytes)
        };
        let mut last = (0, Instant::now());
        while made < count || self.session.outstanding() > 0 {
            while made < count && self.session.outstanding() < WINDOW && self.out.len() < WINDOW_BYTES {
                body.clear();
                let op = make(made, &mut body);
                self.session.submit(op, made, &mut self.out, |out| out.extend_from_slice(&body));
                made += 1;
            }
            let now_ns = self.now_ns();
            self.session.wrote(now_ns);
            self.exchange(&mut counted).await?;
            let so_far = answered.load(Ordering::Relaxed);
            if so_far > last.0 {
                last = (so_far, Instant::now());
            }
            if last.1.elapsed() > self.answer_limit {
                let (limit, address) = (self.answer_limit, self.address);
                bail!(
                    "{address} answered none of {} requests for {limit:?}, the first of them number {} of {count}",
                    self.session.outstanding(),
                    last.0 + 1
                );
            }
        }
        debug_assert_eq!(answered.into_inner(), count);
        Ok(())
    }

    /// One request, its decoded answer or its error number.
    pub(crate) async fn call(&mut self, request: &Request) -> Result<std::result::Result<Response, i32>> {
        let op = request.op();
        let mut answer = None;
        let make = |_, out: &mut BytesMut| {
            request.encode(out);
            op
        };
        self.pipeline(1, make, |_, err, body| {
            answer = Some(if err == 0 { Ok(Response::decode(op, body)?) } else { Err(err) });
            Ok(())
        })
        .await?;
        answer.context("the connection ended without an answer")
    }

    /// The znode's Stat, `None` if there is none.
    pub(crate) async fn stat(&mut self, path: &str) -> Result<Option<Stat>> {
        let request =
            Request::Exists(zoometry_wire::request::PathWatch { path: path.to_owned(), watch: false });
        match self.call(&request).await? {
            Ok(Response::Stat(stat)) => Ok(Some(stat)),
            Err(err) if err == ErrorCode::NoNode.code() => Ok(None),
            Err(code) => Err(Refused { what: format!("exists {path}"), code }.into()),
            Ok(other) => bail!("exists {path}: unexpected answer {other:?}"),
        }
    }

    /// Creates an empty persistent znode; says whether it was new.
    pub(crate) async fn create(&mut self, path: &str, data: &Bytes) -> Result<bool> {
        let mut outcome = 0;
        let make = |_, out: &mut BytesMut| {
            encode::create(out, path, CreateMode::Persistent, |out| {
                zoometry_wire::jute::put_slice(out, data);
            });
            OpCode::Create
        };
        self.pipeline(1, make, |_, err, _| {
            outcome = err;
            Ok(())
        })
        .await?;
        match outcome {
            0 => Ok(true),
            err if err == ErrorCode::NodeExists.code() => Ok(false),
            code => Err(Refused { what: format!("create {path}"), code }.into()),
        }
    }

    /// Ends the session.
    pub(crate) async fn close(mut self) {
        self.session.close(0, &mut self.out);
        // The server may close before we have read its answer; either way the session is over.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.exchange(&mut |_, _, _| Ok(()))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoometry_wire::records::{ConnectResponse, ReadOnlyByte, ReplyHeader};

    #[tokio::test]
    async fn another_kind_of_server_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let patience = Duration::from_secs(30);
        let (members, nobody) = ([address], Credentials::default());
        let attempt = Client::connect(&members, 10_000, Instant::now() + patience, &nobody);
        let ended = tokio::time::timeout(patience / 3, attempt).await.expect("long before the deadline");
        let error = format!("{:#}", ended.err().expect("no session"));
        assert!(error.contains("broke the protocol") && error.contains("\"HTTP\""), "{error}");
    }

    /// A server that lets one session in, and then answers those xids of which `replies` says so.
    async fn answers(replies: impl Fn(i32) -> bool + Send + 'static) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("the client");
            let (mut input, mut out, mut connected) = (BytesMut::new(), BytesMut::new(), false);
            while stream.read_buf(&mut input).await.is_ok_and(|n| n > 0) {
                while let Ok(Some(body)) = zoometry_wire::frame::first(&input, 1 << 20) {
                    let xid = i32::from_be_bytes(body[..4].try_into().expect("a header"));
                    let length = body.len();
                    input.advance(4 + length);
                    match std::mem::replace(&mut connected, true) {
                        false => welcome(&mut out),
                        true if replies(xid) => zoometry_wire::frame::put(&mut out, |out| {
                            let header = ReplyHeader { xid, zxid: Zxid(1), err: 0 };
                            zoometry_wire::jute::Record::encode(&header, out);
                        }),
                        true => {}
                    }
                }
                let _ = stream.write_all_buf(&mut out).await;
            }
        });
        address
    }

    fn welcome(out: &mut BytesMut) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: 600,
            session_id: zoometry_wire::SessionId(1),
            password: Some(Bytes::from_static(&[1; crate::session::PASSWORD])),
        };
        zoometry_wire::frame::put(out, |out| response.encode_frame(ReadOnlyByte::Present(false), out));
    }

    #[tokio::test]
    async fn a_server_that_answers_nothing_but_pings_is_not_waited_for() {
        let address = answers(|xid| xid == zoometry_wire::records::xid::PING).await;
        let soon = Instant::now() + Duration::from_secs(5);
        let nobody = Credentials::default();
        let mut client = Client::connect(&[address], 600, soon, &nobody).await.expect("a session");
        client.answer_limit = Duration::from_millis(900);
        let nothing = Bytes::new();
        let create = client.create("/a", &nothing);
        let ended = tokio::time::timeout(Duration::from_secs(10), create).await.expect("it gives up");
        let error = format!("{:#}", ended.expect_err("nobody answered"));
        assert!(error.contains("answered none of 1 requests for 900ms"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_stops_reading_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("the client");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let mut out = BytesMut::new();
            welcome(&mut out);
            let _ = stream.write_all(&out).await;
            std::future::pending::<()>().await;
        });
        let soon = Instant::now() + Duration::from_secs(5);
        let mut client =
            Client::connect(&[address], 600, soon, &Credentials::default()).await.expect("a session");
        let more_than_sockets_hold = Bytes::from(vec![0; 32 << 20]);
        let create = client.create("/large", &more_than_sockets_hold);
        let ended = tokio::time::timeout(Duration::from_secs(10), create).await.expect("it gives up");
        let error = format!("{:#}", ended.expect_err("nobody answered"));
        assert!(error.contains("has not answered"), "{error}");
    }
}
