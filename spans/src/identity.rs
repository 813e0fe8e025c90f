//! Trace identity that nobody sends: both ends compute it from what the protocol carries anyway.
//!
//! # Derivation, version 1
//!
//! All arithmetic is on 64-bit words and wraps. `mix` is the finaliser of splitmix64, a bijection:
//!
//! ```text
//! mix(x):  x ^= x >> 30;  x *= 0xbf58476d1ce4e5b9;  x ^= x >> 27;  x *= 0x94d049bb133111eb;  x ^= x >> 31
//! G = 0x9e3779b97f4a7c15
//! ```
//!
//! **Trace id.** A trace is named by a domain and two words `a`, `b`; `salt` is a setting of the ensemble
//! (0 unless set), so that two ensembles in one tracing backend do not collide.
//!
//! ```text
//! base = mix(mix(salt + G) + domain * G)       once per process and domain
//! key  = mix(base ^ a)                         once per session, if one likes
//! low  = mix(key + b * G)
//! high = mix(low ^ rotate_left(key, 32))
//! trace id = high, low: 16 bytes, big endian (1 if all are zero)
//! ```
//!
//! | domain | number | a | b |
//! |---|---|---|---|
//! | `req`: one client request | 1 | session id | xid, as an unsigned 32-bit number |
//! | `txn`: a transaction that no client asked for | 2 | zxid | 0 |
//! | `watch`: the events that one transaction fired | 3 | zxid | 0 |
//! | `epoch`: how a leader came to be | 4 | the new epoch | 0 |
//! | `batch`: one fsync of one server | 5 | server id | the batch's number |
//!
//! Xids -1, -2, -4 and -8 (notification, ping, auth, setWatches) name no request and are never traced in
//! `req`. Some clients begin again at xid 1 when they reconnect with the same session. A server that sees
//! a session's xid go backwards may count generations of it and use `a = session ^ mix(generation)` from the
//! first restart on (generation 0 is the session id itself).
//!
//! **Span id.** Every span of the tree has a role, a small number out of [`Role`], and belongs to a server
//! id (0 for the client). So every process can name its parent's span without having been told.
//!
//! ```text
//! span id = mix(high ^ mix(low + (role << 56 | server id & (2^56 - 1)) * G))     (1 if zero)
//! ```
//!
//! **Head sampling** is OpenTelemetry's consistent probability sampling: the randomness R is the low 56 bits
//! of the trace id, a rate p has the rejection threshold T = round((1 - p) * 2^56), and a trace is kept if
//! R >= T. A collector that samples by the same rule agrees with every decision made here.
//!
//! A change to anything above is a new version, with a new domain number. The test vectors are at the end
//! of this file.
//!
//! This module decides nothing about slow or failed requests, and knows nothing of clocks or export.

use std::fmt;
use zoometry_wire::{SessionId, Zxid};

const G: u64 = 0x9e37_79b9_7f4a_7c15;
const RANDOMNESS_BITS: u32 = 56;
const RANDOMNESS_MASK: u64 = (1 << RANDOMNESS_BITS) - 1;

#[inline]
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A trace's id: 128 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub u128);

impl TraceId {
    /// The low 64 bits; their low 56 are the sampling randomness.
    #[inline]
    pub fn low(self) -> u64 {
        self.0 as u64
    }

    /// The high 64 bits.
    #[inline]
    pub fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The id of this trace's span in that role on that server (0: the client).
    #[inline]
    pub fn span(self, role: Role, server: u64) -> SpanId {
        let place = (role as u64) << RANDOMNESS_BITS | server & RANDOMNESS_MASK;
        let id = mix(self.high() ^ mix(self.low().wrapping_add(place.wrapping_mul(G))));
        SpanId(if id == 0 { 1 } else { id })
    }

    /// The id written as 32 hex digits, as traces' URLs have it.
    pub fn from_hex(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

/// A span's id: 64 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub u64);

impl SpanId {
    /// The id written as 16 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

/// What a trace is about. The numbers are part of the derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Domain {
    /// One client request: (session id, xid).
    Request = 1,
    /// A transaction that no client asked for: zxid.
    Txn = 2,
    /// The watch events that one transaction fired: zxid.
    Watch = 3,
    /// How the leader of an epoch came to be: the epoch.
    Epoch = 4,
    /// One fsync of one server: (server id, batch number).
    Batch = 5,
}

/// A span's place in its trace. The numbers are part of the derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// The client: from the moment the operation was due to its reply.
    Client = 1,
    /// The client: from the moment the operation was due to its write to the socket.
    SendQueue = 2,
    /// The server that the client is connected to: frame read to reply flushed.
    Server = 3,
    /// Waiting for the session's earlier requests.
    SessionQueue = 4,
    /// Validation and transaction building.
    Prep = 5,
    /// Append to the log until the fsync is done.
    LogSync = 6,
    /// The fsync itself.
    Fsync = 7,
    /// Changing the tree.
    Apply = 8,
    /// Watch events into the watchers' outboxes.
    Fanout = 9,
    /// Encoding and writing the reply.
    Reply = 10,
    /// Reading the tree.
    Read = 11,
    /// A forwarding member's wait for the commit.
    AwaitCommit = 12,
    /// The leader's handling of a write.
    Write = 13,
    /// The leader's wait for a quorum.
    Quorum = 14,
    /// A follower's handling of a proposal.
    Proposal = 15,
    /// The root of an epoch's, a batch's or a watch's trace.
    Root = 16,
    /// A watcher's receipt of an event.
    WatchReceived = 17,
    /// A client's outage.
    Outage = 18,
}

/// How much is sampled at the head: a consistent-probability threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRate {
    /// Rejection threshold, 0 (all are kept) to 2^56 (none is).
    threshold: u64,
}

impl SampleRate {
    /// Nothing is kept at the head.
    pub const NONE: Self = Self { threshold: 1 << RANDOMNESS_BITS };
    /// Of a thousand traces, one: what client and servers use unless told otherwise.
    pub const DEFAULT_PROBABILITY: f64 = 0.001;
    /// Everything is kept.
    pub const ALL: Self = Self { threshold: 0 };

    /// The rate for a probability. Values outside 0..=1, and NaN, are clamped (NaN to 0).
    pub fn from_probability(p: f64) -> Self {
        let p = if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) };
        Self { threshold: ((1.0 - p) * (1u64 << RANDOMNESS_BITS) as f64).round() as u64 }
    }

    /// The probability.
    pub fn probability(self) -> f64 {
        1.0 - self.threshold as f64 / (1u64 << RANDOMNESS_BITS) as f64
    }

    /// Whether a trace with these low 64 bits is kept.
    #[inline]
    pub fn keeps_low(self, low: u64) -> bool {
        low & RANDOMNESS_MASK >= self.threshold
    }

    /// Whether a trace is kept.
    #[inline]
    pub fn keeps(self, trace: TraceId) -> bool {
        self.keeps_low(trace.low())
    }

    /// The `tracestate` of a head-sampled span: `ot=th:` and the threshold in hex, without trailing zeros.
    /// `None` when nothing is kept: there is no such span.
    pub fn tracestate(self) -> Option<String> {
        if self.threshold > RANDOMNESS_MASK {
            return None;
        }
        let digits = format!("{:014x}", self.threshold);
        let trimmed = digits.trim_end_matches('0');
        Some(format!("ot=th:{}", if trimmed.is_empty() { "0" } else { trimmed }))
    }
}

/// The derivation with one ensemble's salt: what client and servers share.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    salt: u64,
    request_base: u64,
    rate: SampleRate,
}

impl Identity {
    /// Derivation with this salt; requests are head-sampled at this rate.
    pub fn new(salt: u64, rate: SampleRate) -> Self {
        Self { salt, request_base: base(salt, Domain::Request), rate }
    }

    /// The head sampling rate.
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// The trace of a request.
    #[inline]
    pub fn request(&self, session: SessionId, xid: i32) -> TraceId {
        derive(self.request_base, session.0 as u64, u64::from(xid as u32))
    }

    /// Whether a request is kept by head sampling. Cheaper than deriving the whole id; for the hot path.
    /// The special xids (all negative) and 0 are never kept.
    #[inline]
    pub fn keeps(&self, session: SessionId, xid: i32) -> bool {
        xid > 0 && self.rate.keeps_low(low(mix(self.request_base ^ session.0 as u64), u64::from(xid as u32)))
    }

    /// The trace of a transaction that no client asked for.
    pub fn txn(&self, zxid: Zxid) -> TraceId {
        self.trace(Domain::Txn, zxid.0 as u64, 0)
    }

    /// The trace of the watch events that a transaction fired.
    pub fn watch(&self, zxid: Zxid) -> TraceId {
        self.trace(Domain::Watch, zxid.0 as u64, 0)
    }

    /// The trace of an epoch's beginning.
    pub fn epoch(&self, epoch: u32) -> TraceId {
        self.trace(Domain::Epoch, u64::from(epoch), 0)
    }

    /// The trace of one fsync.
    pub fn batch(&self, server: u64, number: u64) -> TraceId {
        self.trace(Domain::Batch, server, number)
    }

    /// The trace of any domain, by its two words.
    pub fn trace(&self, domain: Domain, a: u64, b: u64) -> TraceId {
        derive(base(self.salt, domain), a, b)
    }
}

fn base(salt: u64, domain: Domain) -> u64 {
    mix(mix(salt.wrapping_add(G)).wrapping_add((domain as u64).wrapping_mul(G)))
}

#[inline]
fn low(key: u64, b: u64) -> u64 {
    mix(key.wrapping_add(b.wrapping_mul(G)))
}

#[inline]
fn derive(base: u64, a: u64, b: u64) -> TraceId {
    let key = mix(base ^ a);
    let low = low(key, b);
    let high = mix(low ^ key.rotate_left(32));
    let id = u128::from(high) << 64 | u128::from(low);
    TraceId(if id == 0 { 1 } else { id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The specification's vectors, computed by an independent implementation of the text above:
    /// salt, domain, a, b, trace id.
    const TRACES: [(u64, Domain, u64, u64, &str); 7] = [
        (0, Domain::Request, 0x0100_0000_0000_0000, 1, "0ec6151ea0a698bab47bb9842258e0d9"),
        (0, Domain::Request, 0x0100_0000_0000_0000, 2, "392dd2c310e57765299a2b8b23c058f8"),
        (7, Domain::Request, 0x0100_0000_0000_0000, 1, "1c96e853283ba4b13c2592446336ae86"),
        (0, Domain::Request, u64::MAX, 0x7fff_ffff, "dd0cad51422f24e5cf00ca9b12348ae7"),
        (0, Domain::Watch, 0x1_0000_0007, 0, "20d945c1fc8be8ff38a111e77acde56c"),
        (0, Domain::Epoch, 6, 0, "33e9156b1555ad9a39a8382e1dac7306"),
        (0, Domain::Batch, 3, 1, "cd5abb71caef8f07dcecb7ed188ed6d2"),
    ];

    /// Spans of the first trace above: role, server id, span id.
    const SPANS: [(Role, u64, &str); 4] = [
        (Role::Client, 0, "e8142f05b3d68c04"),
        (Role::Server, 1, "0753d1244308e2f8"),
        (Role::Server, 2, "219da4cf6390e882"),
        (Role::LogSync, 255, "53c7d7b50219101e"),
    ];

    #[test]
    fn the_derivation_is_the_published_one() {
        for (salt, domain, a, b, expected) in TRACES {
            let trace = Identity::new(salt, SampleRate::NONE).trace(domain, a, b);
            assert_eq!(trace.to_string(), expected);
            assert_eq!(TraceId::from_hex(expected), Some(trace));
        }
        let trace = TraceId::from_hex(TRACES[0].4).unwrap();
        for (role, server, expected) in SPANS {
            assert_eq!(trace.span(role, server).to_string(), expected);
            assert_eq!(SpanId::from_hex(expected), Some(trace.span(role, server)));
        }
    }

    #[test]
    fn the_shortcuts_are_the_derivation() {
        let identity = Identity::new(9, SampleRate::from_probability(0.5));
        let session = SessionId(0x0100_0000_0000_0001);
        for xid in 1..1000 {
            let trace = identity.request(session, xid);
            assert_eq!(trace, identity.trace(Domain::Request, session.0 as u64, xid as u64));
            assert_eq!(identity.keeps(session, xid), identity.rate().keeps(trace));
        }
        assert_eq!(identity.watch(Zxid(5)), identity.trace(Domain::Watch, 5, 0));
        assert_eq!(identity.txn(Zxid(5)), identity.trace(Domain::Txn, 5, 0));
        assert_eq!(identity.epoch(5), identity.trace(Domain::Epoch, 5, 0));
        assert_eq!(identity.batch(1, 5), identity.trace(Domain::Batch, 1, 5));
        assert_ne!(identity.watch(Zxid(5)), identity.txn(Zxid(5)));
    }

    #[test]
    fn special_xids_are_never_kept() {
        let all = Identity::new(0, SampleRate::ALL);
        for xid in [-8, -4, -2, -1, 0] {
            assert!(!all.keeps(SessionId(1), xid));
        }
        assert!(all.keeps(SessionId(1), 1));
        let none = Identity::new(0, SampleRate::NONE);
        assert!((1..10_000).all(|xid| !none.keeps(SessionId(1), xid)));
    }

    #[test]
    fn ids_are_unique_and_the_randomness_is_random() {
        // Session ids as servers give them out: one after the other. Xids as clients do.
        let identity = Identity::new(0, SampleRate::from_probability(0.001));
        let mut ids = HashSet::new();
        let mut buckets = [0u32; 256];
        let mut kept = 0;
        for session in 0..300 {
            let session = SessionId(0x0100_0199_aaaa_0000 + session);
            for xid in 1..=1000 {
                let trace = identity.request(session, xid);
                assert!(ids.insert(trace));
                buckets[(trace.low() >> 48 & 0xff) as usize] += 1;
                kept += u32::from(identity.keeps(session, xid));
            }
        }
        let expected = 300_000.0 / 256.0;
        let chi2: f64 = buckets.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: 99.99 % of random draws lie below 345.
        assert!(chi2 < 345.0, "{chi2}");
        // Expected 300, standard deviation 17.
        assert!((230..370).contains(&kept), "{kept}");
    }

    #[test]
    fn a_traces_spans_are_all_different() {
        let trace = Identity::new(0, SampleRate::ALL).request(SessionId(1), 1);
        let roles = [Role::Client, Role::SendQueue, Role::Server, Role::Prep, Role::LogSync, Role::Outage];
        let ids: HashSet<_> =
            roles.iter().flat_map(|&role| (0..256).map(move |server| trace.span(role, server))).collect();
        assert_eq!(ids.len(), roles.len() * 256);
    }

    #[test]
    fn rates_round_trip_and_say_their_threshold() {
        for p in [0.0, 0.001, 0.25, 0.5, 1.0] {
            assert!((SampleRate::from_probability(p).probability() - p).abs() < 1e-12);
        }
        assert_eq!(SampleRate::from_probability(f64::NAN), SampleRate::NONE);
        assert_eq!(SampleRate::from_probability(-1.0), SampleRate::NONE);
        assert_eq!(SampleRate::from_probability(7.0), SampleRate::ALL);
        assert_eq!(SampleRate::ALL.tracestate().as_deref(), Some("ot=th:0"));
        // The OpenTelemetry specification's own examples: 25 % is c, 50 % is 8.
        assert_eq!(SampleRate::from_probability(0.25).tracestate().as_deref(), Some("ot=th:c"));
        assert_eq!(SampleRate::from_probability(0.5).tracestate().as_deref(), Some("ot=th:8"));
        assert_eq!(SampleRate::NONE.tracestate(), None);
    }

    #[test]
    fn broken_hex_is_refused() {
        assert_eq!(TraceId::from_hex("0ec6151e"), None);
        assert_eq!(TraceId::from_hex("zec6151ea0a698bab47bb9842258e0d9"), None);
        assert_eq!(SpanId::from_hex("-8142f05b3d68c0"), None);
    }
}
