//! What goes wrong, drawn from the seed: crashes, cut and slow networks, broken connections, slow disks, jumping
//! clocks, stopped processes; and some courses of events that are known to be dangerous.

use zoometry_replica::zab::{Role, ServerId};

use super::network::End;
use super::{Due, LATENCY_MAX_US, World};

/// A moment at which things like to go wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// A member begins to lead.
    Leads,
    /// A member has taken over its leader's state from this connection, in memory.
    TakesOver(u64),
    /// A member cuts its log.
    Cuts(ServerId),
    /// A member stores an epoch.
    Stores(ServerId),
}

impl World {
    /// Sometimes the worst happens just then.
    pub(super) fn tempt(&mut self, moment: Moment) {
        // Taking a state over is rare enough.
        let one_in = if matches!(moment, Moment::TakesOver(_)) { 3 } else { self.temptation };
        if self.healed_us.is_some() || !self.random.one_in(one_in) {
            return;
        }
        self.note(|| format!("{moment:?}: a bad moment"));
        match moment {
            Moment::Leads => {
                for id in self.ids() {
                    if !self.random.one_in(4) {
                        let pause_us = self.random.between(0, 12_000);
                        self.plan(self.now_us + pause_us, Due::Crash(id));
                        let pause_us = pause_us + self.random.between(1_000, 900_000);
                        self.plan(self.now_us + pause_us, Due::Start(id));
                    }
                }
            }
            Moment::TakesOver(wire) => self.plan(self.now_us, Due::Break(wire)),
            Moment::Cuts(id) | Moment::Stores(id) => {
                let pause_us = self.random.between(0, 6_000);
                self.plan(self.now_us + pause_us, Due::Crash(id));
                let pause_us = pause_us + self.random.between(1_000, 300_000);
                self.plan(self.now_us + pause_us, Due::Start(id));
            }
        }
    }

    /// Something restless has happened; what depends on calm is not judged for a while.
    pub(super) fn unrest(&mut self) {
        self.restless_us = self.restless_us.max(self.now_us);
    }

    /// Whether everything gets through, and soon.
    pub(super) fn is_calm(&self) -> bool {
        self.cut.is_empty()
            && self.slow.is_empty()
            && self.latency_max_us == LATENCY_MAX_US
            && self.machines.iter().all(|machine| machine.paused_until_us.is_none())
    }

    pub(super) fn weather_due(&mut self) {
        if self.healed_us.is_some() {
            return;
        }
        self.unrest();
        let ids = self.ids();
        let id = self.random.pick(&ids);
        match self.random.below(25) {
            0..=2 => self.crash_for_a_while(id, 5_000, 900_000),
            3 => self.crash_in_an_operation(id),
            4 => {
                let most = self.random.below(ids.len()) + 1;
                for id in ids.iter().take(most) {
                    self.crash_for_a_while(*id, 5_000, 200_000);
                }
            }
            5..=6 => self.cut_some(id),
            7 => {
                let id = self.leader().unwrap_or(id);
                self.cut_off(id);
            }
            8 => self.break_some(),
            9 | 23 => self.pause(id),
            10 => self.jump(id),
            11..=12 => self.slow_disk(id),
            13 | 22 => self.slow_network(),
            14 => self.break_clients(),
            15..=16 => self.lonely_tail(),
            17 => self.empty_epoch(),
            18 => self.crash_while_syncing(),
            19 => self.leave_behind(),
            _ => {}
        }
        let pause_us = match self.random.below(10) {
            0 => self.random.between(800_000, 2_500_000),
            1..=3 => self.random.between(1_000, 30_000),
            _ => self.random.between(20_000, 350_000),
        };
        self.plan(self.now_us + pause_us, Due::Weather);
    }

    fn crash_for_a_while(&mut self, id: ServerId, least_us: u64, most_us: u64) {
        self.crash(id);
        let pause_us = self.random.between(least_us, most_us);
        self.plan(self.now_us + pause_us, Due::Start(id));
    }

    fn crash_in_an_operation(&mut self, id: ServerId) {
        let operations = self.random.below(20) as u64;
        self.note(|| format!("{id} will lose its power in {operations} operations"));
        self.machine(id).disk.freeze_after(operations);
        let pause_us = self.random.between(100_000, 1_500_000);
        self.plan(self.now_us + pause_us, Due::Restart(id));
    }

    fn leader(&self) -> Option<ServerId> {
        let leads = |id: &ServerId| {
            self.machine(*id).process.as_ref().is_some_and(|process| {
                matches!(process.role, Role::Leading { epoch } if epoch as i32 == self.judge.newest_epoch())
            })
        };
        self.ids().into_iter().find(leads)
    }

    fn cut(&mut self, from: ServerId, to: ServerId) {
        if from != to {
            self.note(|| format!("cut {from} -> {to}"));
            self.cut.insert((from, to));
        }
    }

    fn heal_later(&mut self, least_us: u64, most_us: u64) {
        let pause_us = self.random.between(least_us, most_us);
        self.plan(self.now_us + pause_us, Due::Heal);
    }

    fn cut_some(&mut self, id: ServerId) {
        let ids = self.ids();
        let other = self.random.pick(&ids);
        self.cut(id, other);
        if self.random.one_in(2) {
            self.cut(other, id);
        }
        self.heal_later(20_000, 1_200_000);
    }

    /// From everybody, in one direction or in both.
    fn cut_off(&mut self, id: ServerId) {
        let way = self.random.below(3);
        for other in self.ids() {
            if way != 1 {
                self.cut(id, other);
            }
            if way != 0 {
                self.cut(other, id);
            }
        }
        self.heal_later(50_000, 1_500_000);
    }

    fn quorum_wires(&self) -> Vec<u64> {
        let is_quorum = |wire: &super::network::Wire| matches!(wire.ends, [End::Member(_), End::Member(_)]);
        let elections: Vec<u64> = self.elections.values().copied().collect();
        self.wires
            .iter()
            .filter(|(id, wire)| is_quorum(wire) && !elections.contains(id))
            .map(|(id, _)| *id)
            .collect()
    }

    fn break_some(&mut self) {
        let wires = self.quorum_wires();
        if !wires.is_empty() {
            let wire = self.random.pick(&wires);
            self.note(|| format!("connection {wire} breaks"));
            self.break_wire(wire);
        }
    }

    fn break_clients(&mut self) {
        let of_client = |wire: &super::network::Wire| matches!(wire.ends[0], End::Client(_));
        let wires: Vec<u64> =
            self.wires.iter().filter(|(_, wire)| of_client(wire)).map(|(id, _)| *id).collect();
        for wire in wires {
            if self.random.one_in(2) {
                self.break_wire(wire);
            }
        }
    }

    /// The process is stopped, and its clock goes on.
    fn pause(&mut self, id: ServerId) {
        let id = self.leader().filter(|_| self.random.clone().one_in(2)).unwrap_or(id);
        if self.machine(id).process.is_none() {
            return;
        }
        let until_us = self.now_us + self.random.between(20_000, 2_000_000);
        self.note(|| format!("{id} is stopped until {until_us}"));
        self.machine_mut(id).paused_until_us = Some(until_us);
        self.plan(until_us, Due::Resume(id));
    }

    fn jump(&mut self, id: ServerId) {
        if self.random.one_in(2) {
            let by_us = self.random.between(20_000, 1_500_000);
            self.note(|| format!("{id}'s clock jumps ahead by {by_us} µs"));
            self.machine_mut(id).clock_ahead_us += by_us;
        } else {
            let by_ms = self.random.between(0, 7_200_000) as i64 - 3_600_000;
            self.note(|| format!("{id}'s wall clock is set by {by_ms} ms"));
            self.machine_mut(id).wall_ahead_ms += by_ms;
        }
    }

    fn slow_disk(&mut self, id: ServerId) {
        let most_us = self.random.between(5_000, 250_000);
        self.note(|| format!("{id}'s disk takes up to {most_us} µs"));
        self.machine_mut(id).disk_max_us = most_us;
        self.heal_later(100_000, 1_000_000);
    }

    fn slow_network(&mut self) {
        if self.random.one_in(3) {
            self.latency_max_us = self.random.between(2_000, 60_000);
        } else {
            let ids = self.ids();
            let (slow, slow_us) = (self.random.pick(&ids), self.random.between(2_000, 120_000));
            self.note(|| format!("{slow} hears late, by up to {slow_us} µs"));
            for other in ids {
                self.slow.insert((other, slow), slow_us);
            }
        }
        self.heal_later(100_000, 800_000);
    }

    // ---- courses of events ----

    /// A leader goes on proposing to nobody, dies, and comes back when others have gone on.
    fn lonely_tail(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.note(|| format!("{leader} shall write alone"));
        for other in self.ids() {
            if self.random.one_in(6) {
                continue;
            }
            if self.random.one_in(2) {
                self.cut(leader, other);
            } else {
                self.cut(other, leader);
            }
        }
        let alone_us = self.random.between(2_000, 150_000);
        self.plan(self.now_us + alone_us, Due::Crash(leader));
        let pause_us = alone_us + self.random.between(1_000, 1_200_000);
        self.plan(self.now_us + pause_us, Due::Start(leader));
        self.plan(self.now_us + alone_us + 1_000, Due::Heal);
    }

    /// Nobody writes for a while, and leaders come and go: epochs without a transaction.
    fn empty_epoch(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.hush_us = self.now_us + self.random.between(300_000, 1_500_000);
        self.note(|| "nobody shall write for a while".into());
        self.crash_for_a_while(leader, 50_000, 1_000_000);
        let pause_us = self.random.between(80_000, 400_000);
        self.plan(self.now_us + pause_us, Due::CrashLeader);
    }

    /// The members die a few moments after they have found a leader: while histories are taken over.
    fn crash_while_syncing(&mut self) {
        let ids = self.ids();
        for id in &ids {
            if self.random.one_in(2) {
                self.machine_mut(*id).disk_max_us = 60_000;
            }
        }
        if let Some(leader) = self.leader() {
            self.crash_for_a_while(leader, 1_000, 60_000);
        }
        for id in ids {
            let pause_us = self.random.between(10_000, 300_000);
            if self.random.one_in(2) {
                self.plan(self.now_us + pause_us, Due::Crash(id));
                let pause_us = pause_us + self.random.between(1_000, 200_000);
                self.plan(self.now_us + pause_us, Due::Start(id));
            }
        }
        self.heal_later(200_000, 600_000);
    }

    /// One member is away for so long that it needs a snapshot.
    fn leave_behind(&mut self) {
        let ids = self.ids();
        let id = self.random.pick(&ids);
        self.crash_for_a_while(id, 1_000_000, 3_000_000);
        if let Some(leader) = self.leader().filter(|leader| *leader != id) {
            let pause_us = self.random.between(300_000, 900_000);
            self.plan(self.now_us + pause_us, Due::Crash(leader));
            self.plan(self.now_us + pause_us + 20_000, Due::Start(leader));
        }
    }

    pub(super) fn crash_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.crash_for_a_while(leader, 50_000, 1_500_000);
        }
    }

    // ---- back to normal ----

    pub(super) fn resume(&mut self, id: ServerId) {
        let now_us = self.now_us;
        let machine = self.machine(id);
        if machine.paused_until_us.is_none() {
            self.go_on(id);
        } else if machine.paused_until_us.is_some_and(|until_us| until_us <= now_us) {
            self.note(|| format!("{id} goes on"));
            self.unrest();
            // Whether it sees the time or what has arrived first is anybody's guess.
            if self.random.one_in(2) {
                self.machine_mut(id).paused_until_us = None;
                self.kick_lanes();
                self.plan(now_us + 1, Due::Resume(id));
            } else {
                self.go_on(id);
                self.kick_lanes();
            }
        }
    }

    /// What has become due while it was stopped is due now.
    pub(super) fn go_on(&mut self, id: ServerId) {
        let machine = self.machine_mut(id);
        machine.paused_until_us = None;
        for due in std::mem::take(&mut machine.held) {
            self.plan(self.now_us, due);
        }
    }

    /// The network is whole again, and everything is as fast as it should be.
    pub(super) fn heal(&mut self) {
        self.note(|| "heal".into());
        self.unrest();
        let cut = std::mem::take(&mut self.cut);
        for (a, b) in cut {
            if self.random.one_in(2) {
                self.renew_election_wire(a, b);
            }
        }
        self.latency_max_us = LATENCY_MAX_US;
        self.slow.clear();
        for id in self.ids() {
            self.machine_mut(id).disk_max_us = 2_000;
        }
        self.kick_lanes();
    }
}
