//! What members say to each other: election messages and quorum packets.
//!
//! Two connections between each pair of members. On the *election port*: one hello ([`ElectionHello`]), then
//! messages `int length` + [`Notification`]. On the *quorum port*, where learners connect to the leader:
//! [`QuorumPacket`]s, one behind the other without a length in front.
//! Source: `QuorumCnxManager.java`, `FastLeaderElection.java`, `Leader.java`, `Learner.java`; reference §8.

use crate::jute::{Malformed, Reader, Record, put_slice};
use crate::record;
use crate::records::{Id, SessionId, Zxid};
use bytes::{BufMut, Bytes, BytesMut};

/// First long of an election connection that carries one address.
pub const HELLO_V1: i64 = -65536;
/// First long of an election connection that carries several addresses, joined with `|`.
pub const HELLO_V2: i64 = -65535;
/// Longest address text in a hello, bytes.
pub const HELLO_ADDRESS_LIMIT: usize = 2048;
/// Longest election message, bytes.
pub const NOTIFICATION_LIMIT: usize = 512 * 1024;
/// The id of an observer that does not say who it is.
pub const ANONYMOUS_OBSERVER: i64 = i64::MAX;
/// Behind the 20 bytes of a [`LearnerInfo`]: the learner takes PINGs while it is synchronised. This program's own.
const TAKES_PINGS: i32 = 1;
/// Learners' protocol version since 3.4.
pub const LEARNER_PROTOCOL: i32 = 0x10000;

/// What the side that dials says first. It must arrive in one piece: Apache's reader does one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionHello {
    /// Who dials.
    pub sid: i64,
    /// Its election addresses, `host:port`.
    pub addresses: Vec<String>,
}

impl ElectionHello {
    /// The hello's bytes, version 1 with the first address.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i64(HELLO_V1);
        out.put_i64(self.sid);
        put_slice(&mut out, self.addresses.first().map_or("", String::as_str).as_bytes());
        out.freeze()
    }

    /// Reads a hello, or returns `None` while it is incomplete. A first long that is not negative is the
    /// id of a member older than 3.5, and nothing follows. Also returns how many bytes it took.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let mut input = Reader::new(bytes);
        if input.remaining() < 8 {
            return Ok(None);
        }
        let version = i64::decode(&mut input)?;
        if version >= 0 {
            return Ok(Some((Self { sid: version, addresses: Vec::new() }, input.offset())));
        }
        if version != HELLO_V1 && version != HELLO_V2 {
            return Err(Malformed { what: "election hello version", offset: 0 });
        }
        if input.remaining() < 12 {
            return Ok(None);
        }
        let sid = i64::decode(&mut input)?;
        let length = i32::decode(&mut input)?;
        if length <= 0 || length as usize > HELLO_ADDRESS_LIMIT {
            return Err(input.malformed("election address length"));
        }
        if input.remaining() < length as usize {
            return Ok(None);
        }
        let text = std::str::from_utf8(input.take(length as usize, "election address")?)
            .map_err(|_| input.malformed("election address"))?;
        let addresses = text.split('|').map(str::to_string).collect();
        Ok(Some((Self { sid, addresses }, input.offset())))
    }
}

/// What a member is doing, as notifications say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum PeerState {
    /// Without a leader.
    Looking = 0,
    /// Following one.
    Following = 1,
    /// Leading.
    Leading = 2,
    /// Observing.
    Observing = 3,
}

impl PeerState {
    fn from_code(code: i32) -> Option<Self> {
        [Self::Looking, Self::Following, Self::Leading, Self::Observing]
            .into_iter()
            .find(|state| *state as i32 == code)
    }
}

/// A member's vote, told to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What the sender is doing.
    pub state: PeerState,
    /// Whom it votes for, or knows to lead.
    pub leader: i64,
    /// That candidate's last zxid.
    pub zxid: Zxid,
    /// The election's round (the sender's logical clock).
    pub election_epoch: i64,
    /// That candidate's epoch.
    pub peer_epoch: i64,
    /// The sender's committed configuration; empty before format version 2.
    pub config: String,
}

/// The notification format that carries a configuration.
const NOTIFICATION_VERSION: i32 = 2;

impl Notification {
    /// Writes the message without its length.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.state as i32);
        out.put_i64(self.leader);
        out.put_i64(self.zxid.0);
        out.put_i64(self.election_epoch);
        out.put_i64(self.peer_epoch);
        out.put_i32(NOTIFICATION_VERSION);
        put_slice(out, self.config.as_bytes());
    }

    /// Reads a message. 28 bytes are the form without a peer epoch (the zxid's is taken); 40 bytes and
    /// formats below 2 carry no configuration.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let start = input.clone();
        let state = PeerState::from_code(i32::decode(&mut input)?).ok_or(start.malformed("peer state"))?;
        let leader = i64::decode(&mut input)?;
        let zxid = Zxid::decode(&mut input)?;
        let election_epoch = i64::decode(&mut input)?;
        let peer_epoch =
            if input.remaining() == 0 { i64::from(zxid.epoch()) } else { i64::decode(&mut input)? };
        let version = if input.remaining() == 0 { 0 } else { i32::decode(&mut input)? };
        let config = if version < NOTIFICATION_VERSION || input.remaining() == 0 {
            String::new()
        } else {
            String::from_utf8_lossy(input.buffer()?.unwrap_or_default()).into_owned()
        };
        Ok(Self { state, leader, zxid, election_epoch, peer_epoch, config })
    }
}

macro_rules! packet_kinds {
    ($($(#[$meta:meta])* $name:ident = $code:literal;)*) => {
        /// What a quorum packet is for. Source: `Leader.java`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum PacketKind { $($(#[$meta])* $name = $code),* }

        impl PacketKind {
            /// Every kind.
            pub const ALL: &[PacketKind] = &[$(PacketKind::$name),*];

            /// The kind with this number. Unknown ones are skipped by their receivers.
            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

packet_kinds! {
    /// A learner forwards a client's write.
    Request = 1;
    /// The leader proposes a transaction.
    Proposal = 2;
    /// A follower has it on its disk.
    Ack = 3;
    /// A quorum has it.
    Commit = 4;
    /// Are you there? The answer carries the sessions heard of.
    Ping = 5;
    /// A learner asks whether a session still lives.
    Revalidate = 6;
    /// The leader answers a sync.
    Sync = 7;
    /// A proposal that is committed already, for observers.
    Inform = 8;
    /// A reconfiguration is committed.
    CommitAndActivate = 9;
    /// The synchronisation is complete.
    NewLeader = 10;
    /// A participant introduces itself.
    FollowerInfo = 11;
    /// The learner may serve.
    UpToDate = 12;
    /// Transactions follow that the learner lacks.
    Diff = 13;
    /// The learner has transactions that nobody else has: away with them.
    Trunc = 14;
    /// A whole snapshot follows.
    Snap = 15;
    /// An observer introduces itself.
    ObserverInfo = 16;
    /// The leader names the new epoch.
    LeaderInfo = 17;
    /// The learner accepts it.
    AckEpoch = 18;
    /// A committed reconfiguration, for observers.
    InformAndActivate = 19;
}

record! {
    /// One message on the quorum port.
    pub struct QuorumPacket {
        /// A [`PacketKind`] number.
        pub kind: i32,
        /// What it speaks of; −1 where it speaks of none.
        pub zxid: Zxid,
        /// The kind's payload.
        pub data: Option<Bytes>,
        /// The client's identities, in a REQUEST, where it must not be null.
        pub authinfo: AuthInfo,
    }
}

/// Identities that may be null: the two are told apart by Apache's leader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthInfo(pub Option<Vec<Id>>);

impl Record for AuthInfo {
    fn encode(&self, out: &mut BytesMut) {
        match &self.0 {
            None => out.put_i32(-1),
            Some(ids) => ids.encode(out),
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut ahead = input.clone();
        if i32::decode(&mut ahead)? == -1 {
            *input = ahead;
            return Ok(Self(None));
        }
        Vec::decode(input).map(|ids| Self(Some(ids)))
    }
}

impl QuorumPacket {
    /// A packet of this kind without data.
    pub fn new(kind: PacketKind, zxid: Zxid) -> Self {
        Self { kind: kind as i32, zxid, data: None, authinfo: AuthInfo(None) }
    }

    /// The same with data.
    pub fn with_data(mut self, data: Bytes) -> Self {
        self.data = Some(data);
        self
    }

    /// The length of the first packet in `bytes`, once its lengths can be read; `None` while more bytes are
    /// needed. `limit` bounds the data, so that a hostile length is refused before it is waited for.
    pub fn measure(bytes: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
        let mut at = 12;
        let Some(length) = int_at(bytes, at) else { return Ok(None) };
        if length < -1 || length as i64 > limit as i64 {
            return Err(Malformed { what: "quorum packet length", offset: at });
        }
        at += 4 + length.max(0) as usize;
        let Some(ids) = int_at(bytes, at) else { return Ok(None) };
        if ids < -1 || ids as i64 * 8 > limit as i64 {
            return Err(Malformed { what: "quorum packet identities", offset: at });
        }
        at += 4;
        for _ in 0..ids.max(0) * 2 {
            let Some(length) = int_at(bytes, at) else { return Ok(None) };
            if length < -1 || length as i64 > limit as i64 {
                return Err(Malformed { what: "quorum packet identity", offset: at });
            }
            at += 4 + length.max(0) as usize;
        }
        Ok((bytes.len() >= at).then_some(at))
    }
}

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at + 4)?;
    Some(i32::from_be_bytes(four.try_into().expect("four bytes")))
}

record! {
    /// How a learner introduces itself; 20 bytes. Shorter forms exist: see [`LearnerInfo::read`].
    #[derive(Copy)]
    pub struct LearnerInfo {
        /// Its id.
        pub sid: i64,
        /// [`LEARNER_PROTOCOL`].
        pub protocol: i32,
        /// The version of the configuration it knows.
        pub config_version: i64,
    }
}

impl LearnerInfo {
    /// The payload of a learner that takes PINGs from its introduction on: 24 bytes. Apache's leader reads the first 20
    /// (`LearnerHandler.run`), and pings nobody before it broadcasts.
    pub fn with_pings(&self) -> Bytes {
        let mut out = BytesMut::from(&self.to_bytes()[..]);
        out.put_i32(TAKES_PINGS);
        out.freeze()
    }

    /// Whether this payload's sender takes PINGs from its introduction on.
    pub fn takes_pings(bytes: &[u8]) -> bool {
        bytes.len() >= 24 && bytes[20..24] == TAKES_PINGS.to_be_bytes()
    }

    /// Reads the payload of FOLLOWERINFO or OBSERVERINFO: 20, 12 (no configuration) or 8 bytes (id only).
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let mut info = Self { sid: i64::decode(&mut input)?, protocol: 0, config_version: 0 };
        if input.remaining() >= 4 {
            info.protocol = i32::decode(&mut input)?;
        }
        if input.remaining() >= 8 {
            info.config_version = i64::decode(&mut input)?;
        }
        Ok(info)
    }
}

/// A client's write on its way from a learner to the leader: the payload of a REQUEST. The body is the
/// client's own record, not parsed on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// The client's session.
    pub session: SessionId,
    /// The client's xid.
    pub cxid: i32,
    /// The operation's number.
    pub op: i32,
    /// The record.
    pub body: Bytes,
}

impl ForwardedRequest {
    /// The payload.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16 + self.body.len());
        self.session.encode(&mut out);
        self.cxid.encode(&mut out);
        self.op.encode(&mut out);
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    /// Reads a payload.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        Ok(Self {
            session: Record::decode(&mut input)?,
            cxid: Record::decode(&mut input)?,
            op: Record::decode(&mut input)?,
            body: Bytes::copy_from_slice(input.rest()),
        })
    }
}

/// Bytes of one session in [`put_touches`].
pub const TOUCH_BYTES: usize = 12;

/// The sessions that a learner has heard of since the last PING, with their timeouts (ms).
pub fn put_touches(touches: &[(SessionId, i32)], out: &mut BytesMut) {
    for (session, timeout_ms) in touches {
        session.encode(out);
        timeout_ms.encode(out);
    }
}

/// Reads what [`put_touches`] wrote, to the end of the payload.
pub fn read_touches(bytes: &[u8]) -> Result<Vec<(SessionId, i32)>, Malformed> {
    let mut input = Reader::new(bytes);
    let mut touches = Vec::with_capacity(bytes.len() / TOUCH_BYTES);
    while input.remaining() > 0 {
        touches.push((Record::decode(&mut input)?, Record::decode(&mut input)?));
    }
    Ok(touches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace())
            .map(|b| (b as char).to_digit(16).unwrap() as u8)
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn the_hello_is_apaches() {
        let bytes = unhex("ffffffffffff0000 0000000000000003 0000000e 3132372e302e302e313a33383838");
        let hello = ElectionHello { sid: 3, addresses: vec!["127.0.0.1:3888".into()] };
        assert_eq!(hello.to_bytes(), bytes);
        assert_eq!(ElectionHello::decode(&bytes), Ok(Some((hello, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(ElectionHello::decode(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert!(ElectionHello::decode(&unhex("fffffffffffe0000 0000000000000003 0000000e")).is_err());
    }

    #[test]
    fn the_notification_is_apaches() {
        let bytes = unhex(
            "00000000 0000000000000001 0000000100000002 0000000000000001 0000000000000001 00000002 00000032
             7365727665722e313d3132372e302e302e313a323838383a333838383a7061727469636970616e740a76657273696f6e3d30",
        );
        let notification = Notification {
            state: PeerState::Looking,
            leader: 1,
            zxid: Zxid(0x1_0000_0002),
            election_epoch: 1,
            peer_epoch: 1,
            config: "server.1=127.0.0.1:2888:3888:participant\nversion=0".into(),
        };
        let mut out = BytesMut::new();
        notification.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(Notification::decode(&bytes), Ok(notification.clone()));
        assert_eq!(Notification::decode(&bytes[..28]).unwrap().peer_epoch, 1);
        assert_eq!(Notification::decode(&bytes[..40]).unwrap().config, "");
        assert!(Notification::decode(&bytes[..27]).is_err());
    }

    #[test]
    fn the_packets_are_apaches() {
        let info = LearnerInfo { sid: 3, protocol: LEARNER_PROTOCOL, config_version: 0 };
        let packet =
            QuorumPacket::new(PacketKind::FollowerInfo, Zxid(1 << 32)).with_data(Record::to_bytes(&info));
        let bytes =
            unhex("0000000b 0000000100000000 00000014 0000000000000003 00010000 0000000000000000 ffffffff");
        assert_eq!(packet.to_bytes(), bytes);
        assert_eq!(QuorumPacket::from_bytes(&bytes), Ok(packet));
        let pong = QuorumPacket::new(PacketKind::Ping, Zxid(0x1_0000_0002)).with_data(Bytes::new());
        assert_eq!(pong.to_bytes(), unhex("00000005 0000000100000002 00000000 ffffffff"));
        assert_eq!(LearnerInfo::read(&info.with_pings()), Ok(info));
        assert_eq!(info.with_pings()[..20], info.to_bytes());
        assert!(LearnerInfo::takes_pings(&info.with_pings()) && !LearnerInfo::takes_pings(&info.to_bytes()));
        for cut in 0..bytes.len() {
            assert_eq!(QuorumPacket::measure(&bytes[..cut], 1000), Ok(None), "{cut}");
        }
        assert_eq!(QuorumPacket::measure(&bytes, 1000), Ok(Some(bytes.len())));
        assert!(QuorumPacket::measure(&bytes, 10).is_err());
    }

    #[test]
    fn null_identities_are_not_empty_ones() {
        for authinfo in [None, Some(vec![]), Some(vec![Id { scheme: "ip".into(), id: "::1".into() }])] {
            let packet = QuorumPacket { authinfo: AuthInfo(authinfo), ..QuorumPacket::default() };
            let bytes = packet.to_bytes();
            assert_eq!(QuorumPacket::from_bytes(&bytes), Ok(packet));
            assert_eq!(QuorumPacket::measure(&bytes, 1000), Ok(Some(bytes.len())));
        }
    }
}
