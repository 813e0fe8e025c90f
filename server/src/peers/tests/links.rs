//! The quorum port.

use super::super::hellos::HELLOS_WAITING_MAX;
use super::super::quorum::{INTRODUCTION_BYTES_MAX, LINKS_PER_MEMBER_MAX, UNLISTED_LEARNERS_MAX};
use super::*;
use bytes::{Bytes, BytesMut};
use zoometry_replica::storage::snapshot::{encode_end, encode_head};
use zoometry_replica::store::prep::{Asked, Prep};
use zoometry_wire::peer::{LEARNER_PROTOCOL, LearnerInfo};
use zoometry_wire::request::CreateRequest;
use zoometry_wire::{Acl, Reader, Record, Request, SessionId, TxnRecord};

/// Two members; the first has connected to the second.
pub(crate) async fn pair(learner: impl FnOnce(PeerOptions) -> PeerOptions) -> (Desk, Link, Desk, Link) {
    let members = lines(2);
    let mut leader = Desk::start(options(2, &members)).await;
    let mut learner = Desk::start(learner(options(1, &members))).await;
    learner.peers.connect(ServerId(2));
    let PeerEvent::Connected(_, here) = learner.next().await else { panic!("expected Connected") };
    learner.peers.send(here, &introduction(1));
    learner.peers.flush();
    let there = accepted(&mut leader).await;
    (learner, here, leader, there)
}

/// A learner's first packet.
fn introduction(sid: i64) -> QuorumPacket {
    let info = LearnerInfo { sid, protocol: LEARNER_PROTOCOL, config_version: 0 };
    QuorumPacket::new(PacketKind::FollowerInfo, Zxid(0)).with_data(info.to_bytes())
}

/// Connects and says who it is.
async fn learner(port: u16, sid: i64) -> Raw {
    let mut raw = Raw::connect(port).await;
    raw.write(&introduction(sid).to_bytes()).await;
    raw
}

/// The next link, and its introduction.
async fn accepted(desk: &mut Desk) -> Link {
    let PeerEvent::Accepted(link) = desk.next().await else { panic!("expected Accepted") };
    let first = packets(desk, link, 1).await;
    assert_eq!(first[0].kind, PacketKind::FollowerInfo as i32);
    link
}

/// The far end of a link, which takes nothing from it until it is read.
pub(crate) struct Paused(Raw);

impl Paused {
    /// A member, its link, and the far end.
    pub(crate) async fn connect() -> (Desk, Link, Self) {
        let members = lines(2);
        let mut desk = Desk::start(options(1, &members)).await;
        let raw = learner(quorum_port(&members, 1), 2).await;
        let link = accepted(&mut desk).await;
        (desk, link, Self(raw))
    }

    /// Reads so many packets.
    pub(crate) async fn read(&mut self, count: usize) -> Vec<QuorumPacket> {
        let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
        while all.len() < count {
            let read = timeout(PATIENCE, self.0.0.read_buf(&mut buffer)).await.expect("bytes in time");
            assert!(read.expect("read") > 0, "the link has ended");
            while let Some(length) = QuorumPacket::measure(&buffer, 16 << 20).expect("a packet") {
                let bytes = buffer.split_to(length);
                all.push(QuorumPacket::decode(&mut Reader::new(&bytes)).expect("a packet"));
            }
        }
        all
    }
}

fn proposal(number: i64, data_bytes: usize) -> QuorumPacket {
    QuorumPacket::new(PacketKind::Proposal, Zxid(number))
        .with_data(Bytes::from(vec![number as u8; data_bytes]))
}

/// The next `count` packets of a link.
pub(crate) async fn packets(desk: &mut Desk, link: Link, count: usize) -> Vec<QuorumPacket> {
    let mut all = Vec::new();
    while all.len() < count {
        match desk.next().await {
            PeerEvent::Packets(from, some) if from == link && !some.is_empty() => {
                all.extend(some);
                desk.peers.taken(link);
            }
            other => panic!("expected packets, got {other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn a_link_whose_packets_are_not_taken_is_not_read() {
    let (learner, here, mut leader, there) = pair(|options| options).await;
    let say = |number| {
        learner.peers.send(here, &proposal(number, 1));
        learner.peers.flush();
    };
    for number in 0..UNTAKEN_BATCHES_MAX {
        say(number as i64);
        assert!(matches!(leader.next().await, PeerEvent::Packets(..)));
    }
    say(-1);
    leader.nothing().await;
    leader.peers.taken(there);
    let PeerEvent::Packets(_, last) = leader.next().await else { panic!("expected packets") };
    assert_eq!(last, [proposal(-1, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_every_size_go_both_ways_in_order() {
    let (mut learner, here, mut leader, there) = pair(|options| options).await;
    assert_eq!(learner.peers.address(here).unwrap().ip(), std::net::Ipv4Addr::LOCALHOST);
    let sent: Vec<_> = (0..3000).map(|number| proposal(number, (number as usize * 7919) % 5000)).collect();
    let big = vec![proposal(1, 3 << 20), proposal(2, 0), proposal(3, 1)];
    let ids = zoometry_wire::Id { scheme: "ip".into(), id: "::1".into() };
    let mut request = QuorumPacket::new(PacketKind::Request, Zxid(-1));
    request.authinfo = zoometry_wire::peer::AuthInfo(Some(vec![ids]));
    for packet in sent.iter().chain(&big) {
        leader.peers.send(there, packet);
    }
    learner.peers.send(here, &request);
    leader.peers.flush();
    learner.peers.flush();
    assert_eq!(packets(&mut learner, here, 3000).await[..3000], sent[..]);
    assert_eq!(packets(&mut leader, there, 1).await, [request]);
    // Behind the big ones, some of which may have come along already.
    leader.peers.send(there, &proposal(9, 9));
    leader.peers.flush();
    let mut last = Vec::new();
    while last.last().is_none_or(|packet: &QuorumPacket| packet.zxid != Zxid(9)) {
        last.extend(packets(&mut learner, here, 1).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_sends_what_is_there_and_only_the_other_side_hears_of_it() {
    let (mut learner, here, mut leader, there) = pair(|options| options).await;
    for number in 0..500 {
        leader.peers.send(there, &proposal(number, 1000));
    }
    leader.peers.close(there);
    assert_eq!(leader.peers.address(there), None);
    assert_eq!(packets(&mut learner, here, 500).await.len(), 500);
    let event = learner.next().await;
    assert!(matches!(event, PeerEvent::Closed(link) if link == here), "{event:?}");
    assert_eq!(learner.peers.address(here), None);
    // Nobody minds what is said to a link that is gone.
    leader.peers.send(there, &proposal(1, 1));
    leader.peers.close(there);
    leader.peers.flush();
    leader.nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_told_after_a_pause() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    for to in [2, 77] {
        let began = std::time::Instant::now();
        desk.peers.connect(ServerId(to));
        let event = desk.next().await;
        assert!(matches!(event, PeerEvent::Unreachable(ServerId(id)) if id == to), "{event:?}");
        assert!(began.elapsed() >= CONNECT_PAUSE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_goes_away_is_missed_at_once() {
    let (mut learner, here, leader, _) = pair(|options| options).await;
    let began = std::time::Instant::now();
    drop(leader);
    let event = learner.next().await;
    assert!(matches!(event, PeerEvent::Closed(link) if link == here), "{event:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_does_not_read_is_dropped_at_the_limit() {
    let members = lines(2);
    let limit = PeerOptions { outbox_bytes_max: 1 << 20, ..options(1, &members) };
    let mut desk = Desk::start(limit).await;
    let _deaf = learner(quorum_port(&members, 1), 2).await;
    let link = accepted(&mut desk).await;
    // The systems' buffers take some of it, whatever their size; the rest waits here.
    let mut sent = 0;
    while desk.peers.address(link).is_some() {
        desk.peers.send(link, &proposal(1, 64 << 10));
        desk.peers.flush();
        sent += 1;
        assert!(sent < 100_000, "no limit");
        tokio::task::yield_now().await;
    }
    let event = desk.next().await;
    assert!(matches!(event, PeerEvent::Closed(gone) if gone == link), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_own_link_only() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    let port = quorum_port(&members, 1);
    let mut good = learner(port, 2).await;
    let kept = accepted(&mut desk).await;
    let mut silent = learner(port, 2).await;
    accepted(&mut desk).await;
    let ping = QuorumPacket::new(PacketKind::Ping, Zxid(3));
    let ids = [vec![0; 12], vec![0xff; 4], vec![0x7f; 4]].concat();
    let snapshot = QuorumPacket::new(PacketKind::Snap, Zxid(3)).to_bytes().to_vec();
    for garbage in [vec![0x7f; 100], ids, snapshot, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()] {
        let mut raw = learner(port, 7).await;
        let link = accepted(&mut desk).await;
        // What was whole before it still counts.
        raw.write(&[ping.to_bytes().to_vec(), garbage].concat()).await;
        assert_eq!(packets(&mut desk, link, 1).await[0], ping);
        let event = desk.next().await;
        assert!(matches!(event, PeerEvent::Closed(gone) if gone == link), "{event:?}");
        raw.ended().await;
    }
    // Endless identities are no packet, and not kept either.
    let mut raw = learner(port, 7).await;
    let link = accepted(&mut desk).await;
    raw.write(&[vec![0; 12], vec![0xff; 4], vec![0, 1, 0, 0]].concat()).await;
    let id = [1000i32.to_be_bytes().to_vec(), vec![b'x'; 1000]].concat();
    let chunk = id.repeat(100);
    let mut written = 0;
    while raw.0.write_all(&chunk).await.is_ok() {
        written += chunk.len();
        assert!(written < 100 << 20, "no limit");
    }
    let event = desk.next().await;
    assert!(matches!(event, PeerEvent::Closed(gone) if gone == link), "{event:?}");

    good.write(&ping.to_bytes()).await;
    assert_eq!(packets(&mut desk, kept, 1).await, [ping]);
    assert!(timeout(QUIET, silent.0.read_u8()).await.is_err(), "silence is the machine's to judge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_the_place_of_a_member() {
    let members = lines(3);
    let mut desk = Desk::start(options(1, &members)).await;
    let port = quorum_port(&members, 1);
    let mut kept = Vec::new();
    for stranger in 0..UNLISTED_LEARNERS_MAX {
        kept.push(learner(port, 100 + stranger as i64).await);
        accepted(&mut desk).await;
    }
    learner(port, 99).await.ended().await;
    for _ in 0..LINKS_PER_MEMBER_MAX {
        kept.push(learner(port, 2).await);
        accepted(&mut desk).await;
    }
    learner(port, 2).await.ended().await;
    let _third = learner(port, 3).await;
    accepted(&mut desk).await;
    // A place is free a moment after its link's end was told.
    kept.pop();
    assert!(matches!(desk.next().await, PeerEvent::Closed(_)));
    let mut again = learner(port, 2).await;
    while timeout(QUIET, again.0.read_u8()).await.is_ok() {
        again = learner(port, 2).await;
    }
    accepted(&mut desk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_nothing_keeps_no_learner_out() {
    let members = lines(2);
    let mut desk = Desk::start(PeerOptions { hello_timeout_ms: 60_000, ..options(1, &members) }).await;
    let port = quorum_port(&members, 1);
    let mut silent = Vec::new();
    for _ in 0..HELLOS_WAITING_MAX + 20 {
        silent.push(Raw::connect(port).await);
    }
    let _member = learner(port, 2).await;
    accepted(&mut desk).await;
    // The oldest had to go; nobody has heard of any of them.
    silent[0].ended().await;
    desk.nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_a_link_when_it_has_said_who_it_is() {
    let members = lines(2);
    let mut desk = Desk::start(PeerOptions { hello_timeout_ms: 300, ..options(1, &members) }).await;
    let port = quorum_port(&members, 1);
    let late = Raw::connect(port).await;
    let mut half = Raw::connect(port).await;
    half.write(&introduction(2).to_bytes()[..20]).await;
    let no_info = QuorumPacket::new(PacketKind::FollowerInfo, Zxid(0)).to_bytes().to_vec();
    let long = introduction(2).with_data(vec![0; INTRODUCTION_BYTES_MAX + 1].into()).to_bytes().to_vec();
    let ping = QuorumPacket::new(PacketKind::Ping, Zxid(3)).to_bytes().to_vec();
    for first in [no_info, long, ping, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()] {
        let mut raw = Raw::connect(port).await;
        raw.write(&first).await;
        raw.ended().await;
    }
    for mut raw in [late, half] {
        raw.ended().await;
    }
    desk.nothing().await;
}

/// What a learner lacks may be many bytes, and its link slow: it must not be taken for dead meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_counted_before_all_of_them_have_moved() {
    let members = lines(2);
    let mut leader = Desk::start(options(2, &members)).await;
    let mut slow = learner(quorum_port(&members, 2), 1).await;
    let link = accepted(&mut leader).await;
    // More than the systems' buffers take, and more again.
    for number in 0..64 {
        leader.peers.send(link, &proposal(number, 1 << 20));
    }
    leader.peers.flush();
    for received in [16 << 20, 32 << 20] {
        slow.exactly(16 << 20).await;
        let counted = async {
            while leader.peers.moved_bytes(link) < Some(received) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("what was received has moved");
    }
}

/// A store with `count` znodes, some with data, some below others, some of a session's.
fn store(count: i64) -> (Store, Prep) {
    let (mut store, mut prep) = (Store::new(StoreConfig::default()), Prep::new(StoreConfig::default()));
    write(&mut store, &mut prep, Request::CreateSession(30_000));
    for number in 0..count {
        create(&mut store, &mut prep, number);
    }
    (store, prep)
}

fn create(store: &mut Store, prep: &mut Prep, number: i64) -> TxnRecord {
    let path =
        if number % 50 == 0 { format!("/p{number}") } else { format!("/p{}/n{number}", number / 50 * 50) };
    let flags = i32::from(number % 50 == 7);
    let data = (number % 3 != 0).then(|| vec![number as u8; (number as usize * 31) % 2000].into());
    write(store, prep, Request::Create(CreateRequest { path, data, acl: Acl::open(), flags }))
}

fn write(store: &mut Store, prep: &mut Prep, request: Request) -> TxnRecord {
    let zxid = store.last_zxid().next();
    let asked = Asked { session: SessionId(9), cxid: 1, ids: &[], request: &request, session_check: Ok(()) };
    let record = prep.prepare(store, &asked, zxid, 1);
    store.apply(&record, &mut ()).expect("a write");
    prep.applied(zxid);
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_arrives_whole_between_packets() {
    let (mut learner, here, leader, there) = pair(|options| options).await;
    let (original, mut prep) = store(6000);
    let zxid = original.last_zxid();
    let nodes = original.node_count();
    let ephemerals = original.ephemerals_count();
    assert!(ephemerals > 100);
    let original = Arc::new(RwLock::new(original));
    leader.peers.send(there, &proposal(1, 10));
    leader.peers.send(there, &QuorumPacket::new(PacketKind::Snap, zxid));
    leader.peers.send_snapshot(there, Arc::clone(&original));
    for number in 0..100 {
        leader.peers.send(there, &proposal(number, 3000));
    }
    leader.peers.flush();
    // The leader goes on meanwhile. The snapshot may hold some of that, and what comes behind it in the log
    // makes it the same tree again.
    let log: Vec<_> = (6000..6100).map(|number| create(&mut original.write(), &mut prep, number)).collect();
    assert_eq!(packets(&mut learner, here, 1).await, [proposal(1, 10)]);
    let PeerEvent::Snapshot(link, packet, arrived) = learner.next().await else {
        panic!("expected Snapshot")
    };
    assert_eq!((link, packet), (here, QuorumPacket::new(PacketKind::Snap, zxid)));
    assert_eq!((arrived.last_zxid(), arrived.node_count()), (zxid, nodes));
    assert_eq!(arrived.ephemerals_count(), ephemerals);
    assert!(arrived.has_session(SessionId(9)));
    let mut arrived = arrived;
    for record in &log {
        arrived.apply(record, &mut ()).expect("new znodes were not in it");
    }
    assert_eq!(arrived.digest(), original.read().digest());
    assert_eq!(arrived.digest_mismatches(), 0);
    let behind = packets(&mut learner, here, 100).await;
    assert_eq!(behind[..], (0..100).map(|number| proposal(number, 3000)).collect::<Vec<_>>()[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stores_snapshot_is_equal() {
    let (mut learner, here, leader, there) = pair(|options| options).await;
    let (original, _) = store(3000);
    leader.peers.send(there, &QuorumPacket::new(PacketKind::Snap, original.last_zxid()));
    let original = Arc::new(RwLock::new(original));
    let digest = {
        // The caller may hold the read lock.
        let held = original.read();
        leader.peers.send_snapshot(there, Arc::clone(&original));
        held.digest()
    };
    leader.peers.flush();
    let PeerEvent::Snapshot(_, _, arrived) = learner.next().await else { panic!("expected Snapshot") };
    assert_eq!(arrived.digest(), digest);
    let data_bytes = arrived.approximate_data_size() as u64;
    let received = learner.peers.moved_bytes(here);
    assert!(received >= Some(data_bytes / 2), "{received:?}, data {data_bytes}");
    // The sender counts a moment after the bytes are gone.
    let counted = async {
        while leader.peers.moved_bytes(there) != received {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("both sides count the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_breaks_a_snapshot_off() {
    let members = lines(2);
    let mut leader = Desk::start(options(2, &members)).await;
    for waits in [Duration::ZERO, Duration::from_millis(100)] {
        let mut raw = learner(quorum_port(&members, 2), 1).await;
        let link = accepted(&mut leader).await;
        let (original, _) = store(30_000);
        let zxid = original.last_zxid();
        let original = Arc::new(RwLock::new(original));
        leader.peers.send(link, &proposal(1, 10));
        leader.peers.send(link, &QuorumPacket::new(PacketKind::Snap, zxid));
        leader.peers.send_snapshot(link, Arc::clone(&original));
        leader.peers.send(link, &proposal(2, 10));
        leader.peers.flush();
        // More than the systems' buffers take, so the walk is under way or has not begun.
        tokio::time::sleep(waits).await;
        leader.peers.close(link);
        *original.write() = Store::new(StoreConfig::default());
        let mut bytes = Vec::new();
        timeout(PATIENCE, raw.0.read_to_end(&mut bytes)).await.expect("an end in time").expect("read");
        assert!(bytes.starts_with(&proposal(1, 10).to_bytes()));
        assert!(!bytes.windows(10).any(|window| window == b"BenWasHere"), "{} bytes", bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_none_ends_the_link() {
    let members = lines(2);
    let leader = TcpListener::bind(("127.0.0.1", quorum_port(&members, 2))).await.unwrap();
    let mut desk = Desk::start(options(1, &members)).await;
    let mut stream = BytesMut::from(&QuorumPacket::new(PacketKind::Snap, Zxid(3)).to_bytes()[..]);
    let start = stream.len();
    encode_head(&Store::new(StoreConfig::default()).snapshot_head(), &mut stream);
    encode_end(&mut stream);
    let whole = |signature: &str| {
        let mut all = stream.clone();
        zoometry_wire::jute::put_str(&mut all, signature);
        all
    };
    let orphan = [0, 0, 0, 2, b'a', b'b'];
    let no_tree = [&stream[..stream.len() - 5], &orphan, &[0xff; 4], &[0; 68]].concat();
    for bad in [&whole("BenWasThere!")[..], &stream[..stream.len() - 2], &stream[..start + 2], &no_tree] {
        desk.peers.connect(ServerId(2));
        let mut raw = Raw::accept(&leader).await;
        let PeerEvent::Connected(_, link) = desk.next().await else { panic!("expected Connected") };
        raw.write(bad).await;
        raw.0.shutdown().await.unwrap();
        let event = desk.next().await;
        assert!(matches!(event, PeerEvent::Closed(gone) if gone == link), "{event:?}");
    }
    // And one that is, in single bytes, with a packet at its heels.
    desk.peers.connect(ServerId(2));
    let mut raw = Raw::accept(&leader).await;
    let PeerEvent::Connected(_, link) = desk.next().await else { panic!("expected Connected") };
    let ping = QuorumPacket::new(PacketKind::Ping, Zxid(4));
    for byte in [&whole("BenWasHere")[..], &ping.to_bytes()].concat() {
        raw.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let event = desk.next().await;
    assert!(
        matches!(&event, PeerEvent::Snapshot(from, _, store) if *from == link && store.last_zxid() == Zxid(3))
    );
    assert_eq!(packets(&mut desk, link, 1).await, [ping]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_frees_the_ports() {
    let (learner, _, leader, _) = pair(|options| options).await;
    let options = leader.peers.0.options.clone();
    leader.peers.stop();
    learner.peers.stop();
    timeout(PATIENCE, async {
        while Peers::start(options.clone(), |_| ()).await.map(|peers| peers.stop()).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("both ports in time");
}
