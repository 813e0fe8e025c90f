//! From what was kept to spans.
//!
//! Ids are derived: of the request's trace, the span's role and the server. Spans of which a request has only
//! one, whichever member it is on (the entry member's wait for the commit, the leader's wait for a quorum), have
//! [`ANY`] for the server, so that the others can name them as parents without being told who that was.

use zoometry_spans::{Identity, Kind, Link, Role, Span, TraceId, attrs};

use super::trail::{Trail, Way};
use super::{SHORTEST_CHILD_NS, Traced, Work, is_fault};
use crate::clock;

/// Stands for the server in the ids of spans that only one server can have.
const ANY: u64 = 0;

/// From a kept request to its spans.
pub(super) struct Builder {
    pub(super) identity: Identity,
    pub(super) server: u64,
    pub(super) parented: bool,
    pub(super) tracestate: String,
}

impl Builder {
    /// The SERVER span of a request, and its children.
    pub(super) fn spans(&self, traced: &Traced, out: &mut Vec<Span>) {
        let trace = self.identity.request(traced.session, traced.xid);
        let root = trace.span(Role::Server, self.server);
        let end_ns = traced.replied_ns.max(traced.received_ns);
        let at = |reading_ns: u64| clock::unix_ns(reading_ns.clamp(traced.received_ns, end_ns));
        let name = traced.op.name();
        let mut span = Span::new(trace, root, name, Kind::Server, at(traced.received_ns), at(end_ns))
            .with(attrs::RPC_SYSTEM_NAME, "zookeeper")
            .with(attrs::RPC_METHOD, name)
            .with(attrs::SERVER_ID, self.server as i64)
            .with(attrs::CLIENT_ADDRESS, traced.peer.ip().to_canonical().to_string())
            .with(attrs::SESSION_ID, traced.session.to_string())
            .with(attrs::CXID, i64::from(traced.xid))
            .with(attrs::ZXID, traced.zxid.to_string())
            .with(attrs::KEPT_BY, traced.kept_by.name());
        if let Some(path) = &traced.path {
            span = span.with(attrs::PATH_PREFIX, path.to_string());
        }
        if let Some(code) = traced.error {
            span = span.with(attrs::RPC_STATUS_CODE, code.code().to_string());
            if is_fault(code) {
                span = span.with(attrs::ERROR_TYPE, code.name());
                span.status = zoometry_spans::Status::Error(code.name().into());
            }
        }
        if self.identity.keeps(traced.session, traced.xid) {
            span.tracestate.clone_from(&self.tracestate);
        }
        if self.parented {
            span = span.child_of(trace.span(Role::Client, 0));
        }
        out.push(span);
        self.stretches(traced, trace, end_ns, out);
    }

    /// The SERVER span's children.
    fn stretches(&self, traced: &Traced, trace: TraceId, end_ns: u64, out: &mut Vec<Span>) {
        let at = |reading_ns: u64| clock::unix_ns(reading_ns.clamp(traced.received_ns, end_ns));
        let mut child = |role, name: &'static str, start_ns, end_ns, parent: Role| {
            let (id, parent) = (self.id(trace, role), self.id(trace, parent));
            out.push(Span::new(trace, id, name, Kind::Internal, at(start_ns), at(end_ns)).child_of(parent));
            out.len() - 1
        };
        match traced.work {
            Work::Read { started_ns, ended_ns } => {
                let stretches = [
                    (Role::SessionQueue, "session queue", traced.received_ns, started_ns),
                    (Role::Read, "read", started_ns, ended_ns),
                    (Role::Reply, "reply", ended_ns, end_ns),
                ];
                for (role, name, from_ns, to_ns) in stretches {
                    if to_ns.saturating_sub(from_ns) >= SHORTEST_CHILD_NS {
                        child(role, name, from_ns, to_ns, Role::Server);
                    }
                }
            }
            Work::Forwarded { apply_ns, applied_ns, fanout } => {
                child(Role::AwaitCommit, "await commit", traced.received_ns, apply_ns, Role::Server);
                child(Role::Apply, "apply", apply_ns, applied_ns, Role::Server);
                let fanned =
                    fanout.map(|f| (f, child(Role::Fanout, "fanout", f.first_ns, f.last_ns, Role::Apply)));
                child(Role::Reply, "reply", applied_ns, end_ns, Role::Server);
                if let Some((fanout, index)) = fanned {
                    let watchers = zoometry_spans::attr(attrs::WATCH_COUNT, i64::from(fanout.watchers));
                    out[index].attrs.push(watchers);
                }
            }
            Work::Write { stamps, durable, committed_ns, apply_ns, applied_ns, fanout } => {
                // The disk's thread may take a transaction before the node has read the clock behind the
                // append: it was in the queue by then.
                let taken_ns = durable.map_or(u64::MAX, |durable| durable.taken_ns);
                let appended_ns = stamps.appended_ns.min(taken_ns).max(stamps.prep_ns);
                child(Role::SessionQueue, "session queue", traced.received_ns, stamps.prep_ns, Role::Server);
                child(Role::Prep, "prep", stamps.prep_ns, appended_ns, Role::Server);
                let sync_parent = match committed_ns {
                    Some(committed_ns) => {
                        child(Role::Quorum, "quorum", appended_ns, committed_ns, Role::Server);
                        Role::Quorum
                    }
                    None => Role::Server,
                };
                let synced = durable.map(|durable| {
                    let sync = child(Role::LogSync, "log sync", appended_ns, durable.synced_ns, sync_parent);
                    let written_ns = durable.written_ns.max(appended_ns);
                    child(Role::Fsync, "fsync", written_ns, durable.synced_ns, Role::LogSync);
                    (sync, durable.records)
                });
                child(Role::Apply, "apply", apply_ns, applied_ns, Role::Server);
                let fanned =
                    fanout.map(|f| (f, child(Role::Fanout, "fanout", f.first_ns, f.last_ns, Role::Apply)));
                child(Role::Reply, "reply", applied_ns, end_ns, Role::Server);
                if let Some((index, records)) = synced {
                    out[index].attrs.push(zoometry_spans::attr(attrs::LOG_BATCH_SIZE, i64::from(records)));
                }
                if let Some((fanout, index)) = fanned {
                    let watchers = zoometry_spans::attr(attrs::WATCH_COUNT, i64::from(fanout.watchers));
                    out[index].attrs.push(watchers);
                }
            }
        }
    }

    /// A transaction's way through this member, where its client is another's.
    pub(super) fn trail(&self, trail: &Trail, out: &mut Vec<Span>) {
        let trace = self.identity.request(trail.session, trail.xid);
        let (durable, committed_ns) = (&trail.durable, trail.committed_ns);
        // The disk may be faster than the reading behind the append.
        let appended_ns = trail.appended_ns.min(durable.written_ns);
        let at = clock::unix_ns;
        let span = |role, name: &'static str, kind, from_ns, to_ns: u64| {
            Span::new(trace, self.id(trace, role), name, kind, at(from_ns), at(to_ns.max(from_ns)))
                .with(attrs::SERVER_ID, self.server as i64)
                .with(attrs::ZXID, trail.zxid.to_string())
        };
        let synced_ns = durable.synced_ns;
        // Whose disk was not waited for is no part of the wait: a child that outlives its parent would be
        // blamed for it.
        let late = synced_ns > committed_ns;
        let quorum = self.id(trace, Role::Quorum);
        let under_quorum = |mut span: Span| {
            if late {
                span.links.push(Link { trace, span: quorum, attrs: Vec::new() });
                span
            } else {
                span.child_of(quorum)
            }
        };
        let sync_parent = match trail.way {
            Way::Leading { prep_ns } => {
                let write = self.id(trace, Role::Write);
                let whole = span(Role::Write, "write", Kind::Server, prep_ns, committed_ns);
                out.push(whole.child_of(self.id(trace, Role::AwaitCommit)));
                out.push(span(Role::Prep, "prep", Kind::Internal, prep_ns, appended_ns).child_of(write));
                let wait = span(Role::Quorum, "quorum", Kind::Client, appended_ns, committed_ns);
                out.push(wait.child_of(write));
                None
            }
            Way::Answered => None,
            Way::Following => {
                let whole = span(Role::Proposal, "proposal", Kind::Server, appended_ns, synced_ns);
                out.push(under_quorum(whole.with(attrs::QUORUM_LATE, late)));
                Some(self.id(trace, Role::Proposal))
            }
        };
        let sync = span(Role::LogSync, "log sync", Kind::Internal, appended_ns, synced_ns)
            .with(attrs::LOG_BATCH_SIZE, i64::from(durable.records));
        out.push(match sync_parent {
            Some(parent) => sync.child_of(parent),
            None => under_quorum(sync),
        });
        let fsync = span(Role::Fsync, "fsync", Kind::Internal, durable.written_ns, synced_ns);
        out.push(fsync.child_of(self.id(trace, Role::LogSync)));
    }

    fn id(&self, trace: TraceId, role: Role) -> zoometry_spans::SpanId {
        let server = if matches!(role, Role::AwaitCommit | Role::Quorum) { ANY } else { self.server };
        trace.span(role, server)
    }
}
