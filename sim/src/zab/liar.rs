//! Somebody on the network who is no member: it connects to quorum ports, introduces itself as what it likes, and
//! acknowledges what it is told without having it.
//!
//! It does not go all the way in a voter's name: nothing but authentication keeps that out.

use zoometry_replica::zab::{EPOCH_MAX, EPOCHS_KEPT};
use zoometry_wire::Record as _;
use zoometry_wire::peer::{LEARNER_PROTOCOL, LearnerInfo};

use super::{Bytes, Cargo, Event, Link, PacketKind, QuorumPacket, ServerId, VecDeque, Wire, World, Zxid};

/// Its end of a wire.
const LIAR: ServerId = ServerId(-7);

/// What it does after its introduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    SaysNoMore,
    AcknowledgesAll,
}

impl World {
    /// A liar calls a member.
    pub(super) fn lie(&mut self, to: ServerId) {
        if self.members[&to].zab.is_none() {
            return;
        }
        let some_member = 1 + self.random.below(self.members.len()) as i64;
        let sid = self.random.pick(&[to.0, some_member, 50, 51, -1]);
        let kind = self.random.pick(&[PacketKind::FollowerInfo, PacketKind::ObserverInfo]);
        let newest = self.leaders.keys().next_back().copied().unwrap_or_default();
        let known = newest.saturating_add(1).min(EPOCH_MAX);
        let accepted =
            self.random.pick(&[0, newest, known, known + 7, EPOCH_MAX - EPOCHS_KEPT, EPOCH_MAX, -1]);
        let is_voter =
            kind == PacketKind::FollowerInfo && self.voters.contains(&ServerId(sid)) && sid != to.0;
        let part = if is_voter || self.random.one_in(3) { Part::SaysNoMore } else { Part::AcknowledgesAll };
        self.note(|| format!("a liar calls {to}: {kind:?} of {sid} with epoch {accepted}, {part:?}"));
        let link = Link(self.next_link);
        self.next_link += 1;
        self.wires.insert(link, Wire { ends: [LIAR, to], lanes: Default::default() });
        self.liars.insert(link, part);
        self.give(to, Event::Accepted(link));
        let info = LearnerInfo { sid, protocol: LEARNER_PROTOCOL, config_version: 0 };
        self.tell(link, QuorumPacket::new(kind, Zxid(accepted << 32)).with_data(info.to_bytes()));
    }

    /// At once: a liar must not take the members' time on the network, which is short here.
    fn tell(&mut self, link: Link, packet: QuorumPacket) {
        let to = self.wires.get(&link).map(|wire| wire.ends[1]);
        to.into_iter().for_each(|to| self.give(to, Event::Packet(link, packet.clone())));
    }

    /// Everything that has been sent to liars is answered.
    pub(super) fn answer_as_liars(&mut self) {
        self.liars.retain(|link, _| self.wires.contains_key(link));
        let links: Vec<(Link, Part)> = self.liars.iter().map(|(link, part)| (*link, *part)).collect();
        for (link, part) in links {
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            let to_liar: VecDeque<Cargo> = std::mem::take(&mut wire.lanes[0]);
            for cargo in to_liar.into_iter().filter(|_| part == Part::AcknowledgesAll) {
                let (Cargo::Packet(packet) | Cargo::Snapshot(packet, _)) = cargo;
                self.acknowledge(link, &packet);
            }
        }
    }

    fn acknowledge(&mut self, link: Link, packet: &QuorumPacket) {
        match PacketKind::from_code(packet.kind) {
            Some(PacketKind::LeaderInfo) => {
                let data = Bytes::copy_from_slice(&0i32.to_be_bytes());
                self.tell(link, QuorumPacket::new(PacketKind::AckEpoch, Zxid(0)).with_data(data));
            }
            Some(PacketKind::NewLeader | PacketKind::Proposal | PacketKind::Inform) => {
                self.tell(link, QuorumPacket::new(PacketKind::Ack, packet.zxid));
            }
            Some(PacketKind::Ping) => {
                self.tell(link, QuorumPacket::new(PacketKind::Ping, packet.zxid).with_data(Bytes::new()));
            }
            _ => {}
        }
    }
}
