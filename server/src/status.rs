//! What operators may ask of a member: [`Inspect`] over what its threads share.

use std::collections::BTreeMap;

use zoometry_wire::{SessionId, Zxid};

use crate::clock;
use crate::config::Ensemble;
use crate::conn::Phase;
use crate::shared::{ProposalSizes, Shared};
use crate::stats::ConnView;
use crate::view::{
    EnsembleFacts, Facts, Inspect, LISTING_BYTES_MAX, LeaderFacts, Listing, Mode, SessionView, WatchTotals,
};

impl Shared {
    fn ensemble_facts(&self, mode: Mode) -> Option<EnsembleFacts> {
        let Ensemble::Member(membership) = &self.config.ensemble else { return None };
        let doing = match mode {
            Mode::Leader => "leading - broadcast",
            Mode::Observer => "observing - broadcast",
            Mode::Follower => "following - broadcast",
            Mode::Standalone | Mode::ReadOnly => "looking",
        };
        let standing = self.standing.lock();
        let sizes = standing.proposals.unwrap_or(ProposalSizes { last: -1, min: -1, max: -1 });
        let leader = standing.following.filter(|_| mode == Mode::Leader).map(|following| LeaderFacts {
            learners: following.learners as u64,
            synced_followers: following.synced_followers as u64,
            synced_non_voting_followers: 0,
            synced_observers: following.synced_observers as u64,
            pending_syncs: following.pending_syncs as u64,
            uptime_ms: clock::now_ms().saturating_sub(standing.leading_since_ms),
            last_proposal_size: sizes.last,
            min_proposal_size: sizes.min,
            max_proposal_size: sizes.max,
        });
        Some(EnsembleFacts {
            peer_state: doing.into(),
            quorum_size: membership.participants().count() as u64,
            leader_id: if mode == Mode::Leader { Some(membership.my_id) } else { standing.follows },
            observer_master_id: standing.follows.filter(|_| mode == Mode::Observer),
            leader,
        })
    }
}

impl Inspect for Shared {
    fn facts(&self) -> Option<Facts> {
        let mode = self.mode()?;
        let store = self.store.read();
        let watches = store.watches().counts();
        let sessions = store.session_count() as u64;
        Some(Facts {
            mode,
            last_zxid: store.last_zxid(),
            node_count: store.node_count() as u64,
            ephemerals: store.ephemerals_count() as u64,
            approximate_data_size: store.approximate_data_size() as u64,
            watches: WatchTotals {
                connections: watches.watchers as u64,
                paths: watches.paths as u64,
                data: watches.data as u64,
                child: watches.child as u64,
            },
            global_sessions: sessions,
            local_sessions: 0,
            disk_queue: self.disk.depth() as u64,
            unsent_bytes: self.conns.unsent().bytes() as u64,
            ensemble: self.ensemble_facts(mode),
        })
    }

    fn connections(&self) -> Vec<ConnView> {
        let reading = |phase| matches!(phase, Phase::New | Phase::Open);
        self.conns.all().iter().map(|conn| conn.stats.view(conn.peer, reading(conn.desk().phase))).collect()
    }

    fn reset_connections(&self) {
        for conn in self.conns.all() {
            conn.stats.reset();
        }
    }

    fn sessions(&self) -> Listing<Vec<SessionView>> {
        /// A session's line.
        const LINE_BYTES: usize = 32;
        let since_now = clock::wall_ms() - clock::now_ms() as i64;
        let tracker = self.sessions.lock();
        let view = |deadline_ms: u64, id| SessionView {
            id,
            timeout_ms: tracker.timeout_ms(id).unwrap_or_default(),
            expires_ms: deadline_ms as i64 + since_now,
        };
        let sets = tracker.by_deadline(LISTING_BYTES_MAX / LINE_BYTES).into_iter();
        let listed: Vec<_> = sets
            .flat_map(|(deadline_ms, ids)| ids.into_iter().map(move |id| (deadline_ms, id)))
            .map(|(deadline_ms, id)| view(deadline_ms, id))
            .collect();
        let left_out = tracker.len() - listed.len();
        Listing { listed, left_out }
    }

    fn ephemerals(&self) -> Listing<BTreeMap<SessionId, Vec<String>>> {
        let store = self.store.read();
        let listed = store.some_ephemerals(LISTING_BYTES_MAX);
        let left_out = store.ephemerals_count() - listed.values().map(Vec::len).sum::<usize>();
        Listing { listed, left_out }
    }

    fn watches_by_path(&self) -> Listing<BTreeMap<String, Vec<SessionId>>> {
        let (by_path, pairs) = {
            let store = self.store.read();
            (store.watches().by_path(LISTING_BYTES_MAX), store.watches().counts().data)
        };
        // Between the two looks a few may have come or gone.
        let left_out = pairs.saturating_sub(by_path.values().map(Vec::len).sum());
        let session_of = |watchers: Vec<_>| {
            let mut sessions = Vec::with_capacity(watchers.len());
            self.conns.each(&watchers, |conn| sessions.extend(conn.stats.session()));
            sessions
        };
        let listed = by_path.into_iter().map(|(path, watchers)| (path, session_of(watchers))).collect();
        Listing { listed, left_out }
    }

    fn digests(&self) -> Vec<(Zxid, u64)> {
        self.digests.lock().iter().copied().collect()
    }
}
