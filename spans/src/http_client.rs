//! The HTTP client of the exporter: HTTP/1.1 over one kept-alive `std::net::TcpStream`, blocking.
//!
//! Blocking is right here: OpenTelemetry's batch processor owns a thread and waits on it for every batch.
//! Plain `http://` only; [`crate::export`] refuses other schemes before anything gets here. Responses are
//! read to a limit and their bodies handed back; nothing is redirected, nothing is decompressed. Every
//! request ends within the timeout, whatever the peer does.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use opentelemetry_http::{HttpClient, HttpError};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest response head (status line and headers), in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Longest response body, in bytes. A collector answers with a few dozen.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    timeout: Duration,
    /// The connection of the last request, if its peer keeps it open.
    idle: Mutex<Option<(String, TcpStream)>>,
}

impl Client {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, idle: Mutex::new(None) }
    }

    fn send(&self, request: &Request<Bytes>) -> io::Result<Response<Bytes>> {
        let deadline = Instant::now() + self.timeout;
        let uri = request.uri();
        let host = uri.host().ok_or_else(|| invalid("the endpoint has no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let head = request_head(request, &authority);

        let kept = self.idle.lock().ok().and_then(|mut idle| idle.take());
        if let Some((_, stream)) = kept.filter(|(to, _)| *to == authority) {
            // The peer may have closed it meanwhile; then nothing was lost, and a new connection is made.
            // Once a byte of an answer has come, the request is not repeated.
            match self.exchange(&stream, &head, request.body(), deadline) {
                Ok((response, keep)) => return Ok(self.finish(authority, stream, response, keep)),
                Err(Failed::BeforeAnswer(_)) => {}
                Err(Failed::InAnswer(error)) => return Err(error),
            }
        }
        let stream = connect(&authority, deadline)?;
        match self.exchange(&stream, &head, request.body(), deadline) {
            Ok((response, keep)) => Ok(self.finish(authority, stream, response, keep)),
            Err(Failed::BeforeAnswer(error) | Failed::InAnswer(error)) => Err(error),
        }
    }

    fn finish(
        &self,
        authority: String,
        stream: TcpStream,
        response: Response<Bytes>,
        keep: bool,
    ) -> Response<Bytes> {
        if keep && let Ok(mut idle) = self.idle.lock() {
            *idle = Some((authority, stream));
        }
        response
    }

    fn exchange(
        &self,
        stream: &TcpStream,
        head: &[u8],
        body: &[u8],
        deadline: Instant,
    ) -> Result<(Response<Bytes>, bool), Failed> {
        stream.set_nodelay(true).map_err(Failed::BeforeAnswer)?;
        let mut timed = Timed { stream, deadline };
        timed.write_all(head).and_then(|()| timed.write_all(body)).map_err(Failed::BeforeAnswer)?;
        read_response(&mut timed)
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(self.send(&request).inspect_err(|error| {
            tracing::debug!(target: "zoometry_spans::http", endpoint = %request.uri(), %error, "request failed");
        })?)
    }
}

enum Failed {
    BeforeAnswer(io::Error),
    InAnswer(io::Error),
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn request_head(request: &Request<Bytes>, authority: &str) -> Vec<u8> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.extend_from_slice(format!(" {path} HTTP/1.1\r\nhost: {authority}\r\n").as_bytes());
    head.extend_from_slice(format!("content-length: {}\r\n", request.body().len()).as_bytes());
    for (name, value) in request.headers() {
        if name != http::header::CONTENT_LENGTH && name != http::header::HOST {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The time that is left, never zero (which sockets would take for "forever").
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A stream whose every call ends at the deadline.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads one response; also says whether the connection can be used again.
fn read_response(stream: &mut impl Read) -> Result<(Response<Bytes>, bool), Failed> {
    let mut input = Input { stream, buffer: Vec::new(), at: 0 };
    match input.fill() {
        Ok(0) => return Err(Failed::BeforeAnswer(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(Failed::BeforeAnswer(error)),
        Ok(_) => {}
    }
    input.response().map_err(Failed::InAnswer)
}

struct Input<'a, R> {
    stream: &'a mut R,
    buffer: Vec<u8>,
    at: usize,
}

impl<R: Read> Input<'_, R> {
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let n = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A socket's own timeout; the deadline has passed.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                other => break other?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer[self.at..].iter().position(|&b| b == b'\n') {
                let line = &self.buffer[self.at..self.at + end];
                let text = std::str::from_utf8(line).map_err(|_| invalid("a header is not text"))?;
                let text = text.trim_end_matches('\r').to_owned();
                self.at += end + 1;
                return Ok(text);
            }
            if self.buffer.len() - self.at > MAX_HEAD {
                return Err(invalid("the response's head is too long"));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_BODY {
            return Err(invalid("the response's body is too long"));
        }
        while self.buffer.len() - self.at < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.buffer[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(taken)
    }

    fn response(&mut self) -> io::Result<(Response<Bytes>, bool)> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok())
            .ok_or_else(|| invalid("the answer is not HTTP/1"))?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        let head_start = self.at;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if self.at - head_start > MAX_HEAD {
                return Err(invalid("the response's head is too long"));
            }
            if let Some((name, value)) = line.split_once(':')
                && let (Ok(name), Ok(value)) =
                    (name.trim().parse::<HeaderName>(), value.trim().parse::<HeaderValue>())
            {
                response.headers_mut().append(name, value);
            }
        }
        let header = |name: HeaderName| {
            response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_ascii_lowercase()
        };
        let mut keep =
            status_line.starts_with("HTTP/1.1") && !header(http::header::CONNECTION).contains("close");
        let length = header(http::header::CONTENT_LENGTH);
        let body = if header(http::header::TRANSFER_ENCODING).contains("chunked") {
            self.chunks()?
        } else if !length.is_empty() {
            self.take(length.parse().map_err(|_| invalid("content-length is not a number"))?)?
        } else if status == StatusCode::NO_CONTENT {
            Vec::new()
        } else {
            keep = false;
            self.rest()?
        };
        *response.body_mut() = body.into();
        Ok((response, keep && self.at == self.buffer.len()))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk's size is not a number"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            if size > MAX_BODY - body.len() {
                return Err(invalid("the response's body is too long"));
            }
            body.extend(self.take(size)?);
            self.line()?;
        }
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? != 0 {
            if self.buffer.len() - self.at > MAX_BODY {
                return Err(invalid("the response's body is too long"));
            }
        }
        let body = self.buffer.split_off(self.at);
        self.at = self.buffer.len();
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> io::Result<(Response<Bytes>, bool)> {
        read_response(&mut io::Cursor::new(bytes)).map_err(|failed| match failed {
            Failed::BeforeAnswer(error) | Failed::InAnswer(error) => error,
        })
    }

    #[test]
    fn bodies_come_by_length_in_chunks_or_to_the_end() {
        let (r, keep) = parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((r.body().as_ref(), keep, r.status().as_u16()), (&b"abc"[..], true, 200));
        let (r, keep) = parsed(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n",
        )
        .unwrap();
        assert_eq!((r.body().as_ref(), keep), (&b"abc"[..], true));
        let (r, keep) = parsed(b"HTTP/1.0 503 Busy\r\nRetry-After: 1\r\n\r\nlater").unwrap();
        assert_eq!((r.body().as_ref(), keep, r.status().as_u16()), (&b"later"[..], false, 503));
        assert_eq!(r.headers()["retry-after"], "1");
    }

    #[test]
    fn nonsense_is_refused_and_takes_no_memory() {
        assert!(parsed(b"").is_err());
        assert!(parsed(b"SSH-2.0-OpenSSH\r\n").is_err());
        assert!(parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").is_err());
        assert!(
            parsed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n").is_err()
        );
        assert!(parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").is_err());
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"a: b\r\n".repeat(20_000)].concat();
        assert!(parsed(&endless).is_err());
    }

    #[test]
    fn a_peer_that_never_answers_costs_the_timeout_and_no_more() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(Duration::from_millis(100));
        let uri = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let request = Request::post(uri).body(Bytes::from_static(b"x")).unwrap();
        let begun = Instant::now();
        assert_eq!(client.send(&request).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
