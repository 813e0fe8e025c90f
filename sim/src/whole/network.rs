//! Connections between members, and between clients and members: ordered, late, cut in one direction or both,
//! broken with what was on its way half delivered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use zoometry_replica::storage::SnapshotItem;
use zoometry_replica::zab::{Event, Link, ServerId};
use zoometry_wire::Zxid;
use zoometry_wire::peer::{Notification, QuorumPacket};

use super::client::{ToClient, ToServer};
use super::{Due, World};

/// Who is at the end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Member(ServerId),
    Client(usize),
}

/// A snapshot on its way, while the leader goes on applying: fuzzy.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) items: Vec<SnapshotItem>,
    /// Set when the walk is over: the state that its last slice saw.
    pub(super) until: Option<Zxid>,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Cargo {
    Vote(Notification),
    Reachable(bool),
    Accepted,
    Connected,
    /// It was closed before it had come to be.
    Refused,
    Packet(QuorumPacket),
    Snapshot(QuorumPacket, Rc<RefCell<Stream>>),
    ToServer(ToServer),
    ToClient(ToClient),
    Closed,
}

/// One direction of a wire.
#[derive(Debug, Default)]
pub(super) struct Lane {
    queue: VecDeque<(u64, Cargo)>,
    last_at_us: u64,
    scheduled: bool,
}

/// A connection. Lane `i` carries from end `i` to the other.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ends: [End; 2],
    lanes: [Lane; 2],
    open: [bool; 2],
    broken: bool,
    /// The end that asked for it, the first, knows that it is there.
    connected: bool,
    /// An election connection: never closed, only up or down.
    forever: bool,
}

impl Wire {
    pub(super) fn end_of(&self, end: End) -> usize {
        usize::from(self.ends[1] == end)
    }
}

impl World {
    pub(super) fn add_wire(&mut self, from: End, to: End) -> u64 {
        let wire = self.next_wire;
        self.next_wire += 1;
        let lanes = Default::default();
        let new = Wire {
            ends: [from, to],
            lanes,
            open: [true; 2],
            broken: false,
            connected: false,
            forever: false,
        };
        self.wires.insert(wire, new);
        wire
    }

    /// The election connections, one for each pair.
    pub(super) fn add_election_wires(&mut self) {
        let ids = self.ids();
        for (at, a) in ids.iter().enumerate() {
            for b in &ids[at + 1..] {
                let wire = self.add_wire(End::Member(*a), End::Member(*b));
                self.wires.get_mut(&wire).unwrap().forever = true;
                self.elections.insert((*a, *b), wire);
            }
        }
    }

    pub(super) fn election_wire(&self, a: ServerId, b: ServerId) -> u64 {
        self.elections[&(a.min(b), a.max(b))]
    }

    fn latency_us(&mut self) -> u64 {
        let slowest = self.latency_max_us;
        50 + self.random.below(slowest as usize) as u64
    }

    /// Sends from one end; behind everything sent before.
    pub(super) fn send(&mut self, wire: u64, from: End, cargo: Cargo) {
        let mut delay_us = self.latency_us();
        let Some(found) = self.wires.get(&wire) else { return };
        let dir = found.end_of(from);
        if let (End::Member(from), End::Member(to)) = (from, found.ends[1 - dir])
            && let Some(slow_us) = self.slow.get(&(from, to))
        {
            delay_us += self.random.between(*slow_us / 4, *slow_us);
        }
        let Some(found) = self.wires.get_mut(&wire) else { return };
        if found.open[dir] && !found.broken {
            self.load(wire, dir, delay_us, cargo);
        }
    }

    fn load(&mut self, wire: u64, dir: usize, delay_us: u64, cargo: Cargo) {
        let now_us = self.now_us;
        let lane = &mut self.wires.get_mut(&wire).unwrap().lanes[dir];
        let at_us = lane.last_at_us.max(now_us + delay_us);
        lane.last_at_us = at_us;
        lane.queue.push_back((at_us, cargo));
        if !lane.scheduled {
            lane.scheduled = true;
            self.plan(at_us, Due::Lane(wire, dir));
        }
    }

    /// One end closes: what it has sent still arrives.
    pub(super) fn close_wire(&mut self, wire: u64, end: End) {
        let delay_us = self.latency_us();
        let Some(found) = self.wires.get_mut(&wire) else { return };
        let dir = found.end_of(end);
        if !std::mem::replace(&mut found.open[dir], false) {
            return;
        }
        if found.open[1 - dir] {
            if !found.broken {
                self.load(wire, dir, delay_us, Cargo::Closed);
            }
        } else {
            self.wires.remove(&wire);
        }
    }

    /// The connection breaks: of what is on its way the first part arrives, and each end learns of it in its
    /// own time.
    pub(super) fn break_wire(&mut self, wire: u64) {
        let Some(found) = self.wires.get_mut(&wire).filter(|found| !found.broken && !found.forever) else {
            return;
        };
        found.broken = true;
        for dir in 0..2 {
            self.lose_tail(wire, dir);
            let delay_us = if self.random.one_in(3) { self.random.between(0, 600_000) } else { 100 };
            self.restless_us = self.restless_us.max(self.now_us + delay_us);
            self.load(wire, dir, delay_us, Cargo::Closed);
        }
    }

    fn lose_tail(&mut self, wire: u64, dir: usize) {
        let waiting = self.wires[&wire].lanes[dir].queue.len();
        let kept = self.random.below(waiting + 1);
        self.wires.get_mut(&wire).unwrap().lanes[dir].queue.truncate(kept);
    }

    /// An end has died.
    pub(super) fn drop_end(&mut self, end: End) {
        let ids: Vec<u64> =
            self.wires.iter().filter(|(_, wire)| wire.ends.contains(&end)).map(|(id, _)| *id).collect();
        for id in ids {
            let wire = self.wires.get_mut(&id).unwrap();
            let dir = wire.end_of(end);
            wire.lanes[1 - dir].queue.clear();
            self.lose_tail(id, dir);
            let wire = &self.wires[&id];
            if wire.forever {
                self.load(id, dir, 200, Cargo::Reachable(false));
                continue;
            }
            let other_is_open = wire.open[1 - dir];
            self.wires.get_mut(&id).unwrap().open[dir] = false;
            if other_is_open {
                self.load(id, dir, 200, Cargo::Closed);
            } else {
                self.wires.remove(&id);
            }
        }
    }

    /// Whether nothing gets through from one end to the other now.
    fn is_blocked(&self, from: End, to: End) -> bool {
        if let End::Member(to) = to
            && self.machine(to).paused_until_us.is_some()
        {
            return true;
        }
        match (from, to) {
            (End::Member(from), End::Member(to)) => self.cut.contains(&(from, to)),
            _ => false,
        }
    }

    /// The weather has changed: whatever waits may go on.
    pub(super) fn kick_lanes(&mut self) {
        let mut waiting = Vec::new();
        for (id, wire) in &mut self.wires {
            for (dir, lane) in wire.lanes.iter_mut().enumerate() {
                if let Some((at_us, _)) = lane.queue.front().filter(|_| !lane.scheduled) {
                    lane.scheduled = true;
                    waiting.push((*at_us, *id, dir));
                }
            }
        }
        for (at_us, wire, dir) in waiting {
            self.plan(at_us.max(self.now_us), Due::Lane(wire, dir));
        }
    }

    /// Something may have arrived.
    pub(super) fn lane_due(&mut self, wire: u64, dir: usize) {
        if let Some(found) = self.wires.get_mut(&wire) {
            found.lanes[dir].scheduled = false;
        }
        loop {
            let Some(found) = self.wires.get(&wire) else { return };
            let (from, to) = (found.ends[dir], found.ends[1 - dir]);
            let lane = &found.lanes[dir];
            let Some((at_us, cargo)) = lane.queue.front() else { return };
            if self.is_blocked(from, to) || lane.scheduled {
                return;
            }
            if matches!(cargo, Cargo::Snapshot(_, stream) if stream.borrow().until.is_none()) {
                return;
            }
            let at_us = *at_us;
            let found = self.wires.get_mut(&wire).unwrap();
            if at_us > self.now_us {
                found.lanes[dir].scheduled = true;
                self.plan(at_us, Due::Lane(wire, dir));
                return;
            }
            let (_, mut cargo) = found.lanes[dir].queue.pop_front().unwrap();
            let takes = found.open[1 - dir];
            found.connected |= matches!(cargo, Cargo::Connected);
            if matches!(cargo, Cargo::Closed) {
                if dir == 1 && !found.connected {
                    cargo = Cargo::Refused;
                }
                found.open[1 - dir] = false;
                let is_over = !found.open[dir] || found.broken && found.lanes[1 - dir].queue.is_empty();
                if is_over {
                    self.wires.remove(&wire);
                }
            }
            match (takes, cargo, to) {
                (true, Cargo::Packet(first), End::Member(id)) if self.machine(id).process.is_some() => {
                    let packets = self.packets_behind(wire, dir, first);
                    self.give_packets(id, Link(wire), packets);
                }
                (true, cargo, _) => self.deliver(wire, from, to, cargo),
                (false, ..) => {}
            }
        }
    }

    /// A packet and those that have arrived with it.
    fn packets_behind(&mut self, wire: u64, dir: usize, first: QuorumPacket) -> Vec<QuorumPacket> {
        let now_us = self.now_us;
        let mut packets = vec![first];
        let queue = &mut self.wires.get_mut(&wire).expect("it was delivered from").lanes[dir].queue;
        while let Some((_, Cargo::Packet(_))) = queue.front().filter(|(at_us, _)| *at_us <= now_us) {
            if let Some((_, Cargo::Packet(packet))) = queue.pop_front() {
                packets.push(packet);
            }
        }
        packets
    }

    fn deliver(&mut self, wire: u64, from: End, to: End, cargo: Cargo) {
        match (to, from) {
            (End::Client(client), _) => match cargo {
                Cargo::ToClient(said) => self.client_hears(client, wire, said),
                _ => self.client_lost(client, wire),
            },
            (End::Member(id), End::Client(_)) => match cargo {
                _ if self.machine(id).process.is_none() => self.break_wire(wire),
                Cargo::ToServer(said) => self.hear_client(id, wire, said),
                _ => self.lose_client(id, wire),
            },
            (End::Member(id), End::Member(from)) => {
                if self.machine(id).process.is_none() {
                    return self.break_wire(wire);
                }
                let event = match cargo {
                    Cargo::Vote(vote) => Event::Vote(from, vote),
                    Cargo::Reachable(up) => Event::Reachable(from, up),
                    Cargo::Accepted => Event::Accepted(Link(wire)),
                    Cargo::Connected => Event::Connected(from, Link(wire)),
                    Cargo::Refused => Event::Unreachable(from),
                    Cargo::Packet(packet) => Event::Packet(Link(wire), packet),
                    Cargo::Snapshot(packet, stream) => {
                        self.take_snapshot_in(id, Link(wire), packet.zxid, &stream.borrow());
                        Event::Packet(Link(wire), packet)
                    }
                    Cargo::Closed => Event::Closed(Link(wire)),
                    Cargo::ToServer(_) | Cargo::ToClient(_) => unreachable!("members are no clients"),
                };
                self.give(id, event);
            }
        }
    }

    /// A learner dials its leader's quorum port.
    pub(super) fn connect(&mut self, id: ServerId, to: ServerId) {
        let reaches = !self.cut.contains(&(id, to)) && !self.cut.contains(&(to, id));
        if !reaches || self.machine(to).process.is_none() {
            let life = self.machine(id).lives;
            return self.plan(self.now_us + 50_000, Due::Local(id, life, Event::Unreachable(to)));
        }
        let wire = self.add_wire(End::Member(id), End::Member(to));
        self.send(wire, End::Member(id), Cargo::Accepted);
        self.send(wire, End::Member(to), Cargo::Connected);
    }

    /// The election connection of two members comes up anew, and both say their vote again.
    pub(super) fn renew_election_wire(&mut self, a: ServerId, b: ServerId) {
        let wire = self.election_wire(a, b);
        for (from, to) in [(a, b), (b, a)] {
            if self.machine(a).process.is_none() || self.machine(b).process.is_none() {
                return;
            }
            self.send(wire, End::Member(from), Cargo::Reachable(true));
            if let Some(vote) = self.machine(from).last_votes.get(&to).cloned() {
                self.send(wire, End::Member(from), Cargo::Vote(vote));
            }
        }
    }
}
