//! The election port.

use super::super::election::{STRANGERS_MAX, VOTES_UNHEARD_MAX};
use super::super::hellos::HELLOS_WAITING_MAX;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_go_both_ways_whoever_begins() {
    for (beginner, other) in [(1, 2), (2, 1)] {
        let members = lines(2);
        let mut desks = HashMap::new();
        for id in [1, 2] {
            desks.insert(id, Desk::start(options(id, &members)).await);
        }
        desks[&beginner].notify(other, 7);
        assert_eq!(desks.get_mut(&other).unwrap().vote().await, (beginner, 7));
        desks[&other].notify(beginner, 8);
        assert_eq!(desks.get_mut(&beginner).unwrap().vote().await, (other, 8));
        for number in 100..200 {
            desks[&beginner].notify(other, number);
        }
        while desks.get_mut(&other).unwrap().vote().await != (beginner, 199) {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_begin_at_once_and_three_know_each_other() {
    let members = lines(3);
    let mut desks = Vec::new();
    for id in 1..=3 {
        desks.push(Desk::start(options(id, &members)).await);
    }
    for (from, desk) in desks.iter().enumerate() {
        for to in 1..=3 {
            desk.notify(to, from as i64 + 1);
        }
    }
    for (at, desk) in desks.iter_mut().enumerate() {
        let mut heard = std::collections::BTreeSet::new();
        while heard.len() < 2 {
            let (from, number) = desk.vote().await;
            assert_eq!(from, number);
            heard.insert(from);
        }
        assert!(!heard.contains(&(at as i64 + 1)), "nobody tells itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smaller_ids_dial_is_closed_and_answered_with_a_dial() {
    let members = lines(2);
    let larger = TcpListener::bind(("127.0.0.1", election_port(&members, 2))).await.unwrap();
    let mut desk = Desk::start(options(1, &members)).await;
    desk.notify(2, 1);
    let mut dialled = Raw::accept(&larger).await;
    let hello = dialled.read_hello().await;
    let address = format!("127.0.0.1:{}", election_port(&members, 1));
    assert_eq!(hello, ElectionHello { sid: 1, addresses: vec![address] });
    dialled.ended().await;

    let mut back = Raw::connect(election_port(&members, 1)).await;
    back.hello(2, "127.0.0.1:1").await;
    desk.reachable(2, true).await;
    assert_eq!(back.read_vote().await, vote(1));
    back.write(&framed(&vote(9))).await;
    assert_eq!(desk.vote().await, (2, 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_larger_id_dials_back_to_where_the_hello_says() {
    let members = lines(2);
    let configured = TcpListener::bind(("127.0.0.1", election_port(&members, 1))).await.unwrap();
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut desk = Desk::start(options(2, &members)).await;
    let told = elsewhere.local_addr().unwrap().to_string();
    let mut kept = Vec::new();
    for (address, listener) in [(told.as_str(), &elsewhere), ("0.0.0.0:3888", &configured)] {
        let mut dialled = Raw::connect(election_port(&members, 2)).await;
        dialled.hello(1, address).await;
        dialled.ended().await;
        let mut back = Raw::accept(listener).await;
        assert_eq!(back.read_hello().await.sid, 2);
        desk.reachable(1, true).await;
        back.write(&framed(&vote(4))).await;
        assert_eq!(desk.vote().await, (1, 4));
        kept.push(back);
    }
    kept[0].ended().await;
    kept.clear();
    // The second connection has taken the first one's place without a word; now it goes too.
    desk.reachable(1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_takes_the_place_and_the_last_vote_is_told_again() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    let mut first = Raw::connect(election_port(&members, 1)).await;
    first.hello(2, "127.0.0.1:1").await;
    desk.reachable(2, true).await;
    desk.notify(2, 5);
    assert_eq!(first.read_vote().await.election_epoch, 5);
    let mut second = Raw::connect(election_port(&members, 1)).await;
    second.hello(2, "127.0.0.1:1").await;
    desk.reachable(2, true).await;
    first.ended().await;
    assert_eq!(second.read_vote().await.election_epoch, 5, "the last one, once more");
    desk.nothing().await;
    drop(second);
    desk.reachable(2, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_newest_vote_waits_for_a_member_that_is_away() {
    let members = lines(2);
    let mut small = Desk::start(options(1, &members)).await;
    for number in 1..=20 {
        small.notify(2, number);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut large = Desk::start(options(2, &members)).await;
    large.reachable(1, true).await;
    assert_eq!(large.vote().await, (1, 20));
    small.reachable(2, true).await;

    // The other one goes and comes back. Nothing waits, so nobody dials; then something does.
    drop(large);
    small.reachable(2, false).await;
    small.nothing().await;
    let mut large = loop {
        let (sender, events) = unbounded_channel();
        let deliver = move |event| {
            let _ = sender.send(event);
        };
        match Peers::start(options(2, &members), deliver).await {
            Ok(peers) => break Desk { peers, events },
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    small.notify(2, 21);
    assert_eq!(large.vote().await, (1, 21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_hold_nobody_up() {
    let members = lines(2);
    let mut desk = Desk::start(PeerOptions { hello_timeout_ms: 700, ..options(1, &members) }).await;
    let port = election_port(&members, 1);
    let mut silent = Vec::new();
    for _ in 0..HELLOS_WAITING_MAX + 3 {
        silent.push(Raw::connect(port).await);
    }
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 40],
        &ElectionHello { sid: 1, addresses: vec!["127.0.0.1:1".into()] }.to_bytes(),
        &ElectionHello { sid: -7, addresses: vec!["127.0.0.1:1".into()] }.to_bytes(),
    ] {
        let mut raw = Raw::connect(port).await;
        raw.write(garbage).await;
        // The first of them is the id of a member from before 3.5; then its messages are too long.
        raw.ended().await;
    }
    let mut good = Raw::connect(port).await;
    good.hello(2, "127.0.0.1:1").await;
    good.write(&framed(&vote(3))).await;
    while desk.vote().await != (2, 3) {}
    // A form that is not known is skipped; a length that cannot be ends the connection.
    good.write(&[0, 0, 0, 3, 1, 2, 3]).await;
    good.write(&framed(&vote(4))).await;
    assert_eq!(desk.vote().await, (2, 4));
    good.write(&[0x7f, 0xff, 0xff, 0xff]).await;
    good.ended().await;
    desk.reachable(2, false).await;
    for raw in &mut silent {
        raw.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_at_once_is_not_dialled_without_a_pause() {
    let members = lines(2);
    let rude = TcpListener::bind(("127.0.0.1", election_port(&members, 1))).await.unwrap();
    let desk = Desk::start(options(2, &members)).await;
    let mut dials = 0;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        desk.notify(1, 1);
        if timeout(Duration::from_millis(10), rude.accept()).await.is_ok() {
            dials += 1;
        }
    }
    assert!((2..=8).contains(&dials), "{dials} dials in a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named_with_its_line() {
    let members = lines(1);
    for (port, name) in [(election_port(&members, 1), "election"), (quorum_port(&members, 1), "quorum")] {
        for listen_on_all in [false, true] {
            let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
            let options = PeerOptions { listen_on_all, ..options(1, &members) };
            let error = format!("{:#}", Peers::start(options, |_| ()).await.unwrap_err());
            assert!(
                error.contains(&format!("{name} port of server.1")) && error.contains(&port.to_string()),
                "{error}"
            );
        }
    }
}

/// On one thread, so that the vote is there before the connection's end is seen.
#[tokio::test]
async fn strangers_that_have_gone_leave_room_for_others() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    let first = 100;
    for id in first..first + STRANGERS_MAX as i64 {
        let mut stranger = Raw::connect(election_port(&members, 1)).await;
        stranger.hello(id, "127.0.0.1:1").await;
        desk.reachable(id, true).await;
        // A reset, while a vote is on its way.
        stranger.0.set_zero_linger().expect("an option");
        drop(stranger);
        desk.notify(id, 1);
        desk.reachable(id, false).await;
    }
    let mut other = Raw::connect(election_port(&members, 1)).await;
    other.hello(7, "127.0.0.1:1").await;
    desk.reachable(7, true).await;
    desk.notify(7, 2);
    assert_eq!(other.read_vote().await.election_epoch, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stranger_that_came_first_makes_room() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    let mut strangers = Vec::new();
    for id in 100..100 + STRANGERS_MAX as i64 {
        let mut stranger = Raw::connect(election_port(&members, 1)).await;
        stranger.hello(id, "127.0.0.1:1").await;
        desk.reachable(id, true).await;
        strangers.push(stranger);
    }
    let mut other = Raw::connect(election_port(&members, 1)).await;
    other.hello(7, "127.0.0.1:1").await;
    desk.reachable(100, false).await;
    desk.reachable(7, true).await;
    strangers[0].ended().await;
    desk.notify(7, 2);
    assert_eq!(other.read_vote().await.election_epoch, 2);
    desk.nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_votes_without_end_waits_until_it_is_heard() {
    let members = lines(2);
    let mut desk = Desk::start(options(1, &members)).await;
    let mut other = Raw::connect(election_port(&members, 1)).await;
    other.hello(2, "127.0.0.1:1").await;
    desk.reachable(2, true).await;
    for number in 0..2 * VOTES_UNHEARD_MAX as i64 {
        other.write(&framed(&vote(number))).await;
    }
    for _ in 0..VOTES_UNHEARD_MAX {
        assert!(matches!(desk.next().await, PeerEvent::Vote(..)));
    }
    desk.nothing().await;
    for number in VOTES_UNHEARD_MAX as i64..2 * VOTES_UNHEARD_MAX as i64 {
        desk.peers.heard(ServerId(2));
        assert!(matches!(desk.next().await, PeerEvent::Vote(_, vote) if vote.election_epoch == number));
    }
}
