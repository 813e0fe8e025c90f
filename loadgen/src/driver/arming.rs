//! Watches: left, left again, counted when they fire, taken away, and held against what they should have told.
//!
//! ZooKeeper sends the event of a change before any reply that shows the change, on the same connection. So a read by the watcher's
//! own session is the judge of its watch: an armed watch that stands at version v must have told before a reply shows
//! v + 1 (else the event was *dropped*), and an event must be followed by replies that show the change (else it was *doubled*).
//! One-shot watches owe one event for any number of changes; what changes between an event and the next arming is not told
//! (*coalesced*), nor what changes while a watcher is not connected, except that a one-shot watch which is set again after a
//! reconnect owes an event if there was a change. Nothing is said of a watch whose arming was not answered, of events that
//! arrive before the removal of their watch is answered, or of watches that were not looked at again.

use super::Settings;
use super::encode;
use super::receiving::{STAT, version_of};
use super::slot::{Kind, Load, Role, Slot, Tag};
use super::views::{Asker, Writer};
use super::watching::{Arming, Delivery, Watcher, missed_by};
use super::worker::{Shared, Worker};
use crate::promises::Promise;
use crate::session::{Reply, Session, State, WatchChange, WatchKind as Mark};
use crate::spec::WatchKind;
use std::time::{Duration, Instant};
use zoometry_wire::records::EventType;
use zoometry_wire::{ErrorCode, OpCode};

/// Requests for arming watches outstanding per watcher session.
const ARMING_WINDOW: usize = 256;
/// A watch that the cluster refuses to arm is asked for again with this pause (a member may not have the znode yet) …
const REFUSED_PAUSE_NS: u64 = 100_000_000;
/// … and given up after this time.
const REFUSED_LIMIT: Duration = Duration::from_secs(5);
/// At the end of the load the last looks at watches get this long, together; what is not answered is judged by acknowledged writes.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

fn tag(kind: Kind, at: usize, now_ns: u64) -> Tag {
    Tag { due_ns: now_ns, sent_ns: now_ns, about: at as u64, bytes: 0, phase: 0, kind }
}

impl Worker {
    /// Tells watchers whether `phase` wants them armed, and lets them begin.
    pub(super) fn want_watches(&self, phase: usize) {
        let mut shared = self.shared.borrow_mut();
        for slot in &self.slots[self.issuers..] {
            let slot = &mut *slot.borrow_mut();
            let Role::Watcher(watcher) = &mut slot.load.role else { continue };
            let group = &self.settings.spec.watchers[usize::from(watcher.group)];
            let wanted = group.phases.contains(&(phase as u16));
            if wanted == watcher.wanted {
                continue;
            }
            watcher.wanted = wanted;
            watcher.refused.clear();
            let session = &mut slot.session;
            if wanted {
                for watch in &mut watcher.watches {
                    (watch.arming, watch.refused_ns) = (Arming::Idle, 0);
                }
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            } else {
                watcher.queue.clear();
                disarm(&self.settings, watcher, session, &mut slot.outbox.bytes);
            }
            self.arm(&mut shared, slot);
            slot.outbox.flush();
        }
    }

    /// Sends requests for the watches at the head of the queue. The caller flushes.
    pub(super) fn arm(&self, shared: &mut Shared, slot: &mut Slot) {
        let Slot { session, outbox, load } = slot;
        let Role::Watcher(watcher) = &mut load.role else { return };
        if session.state() != State::Attached || watcher.queue.is_empty() {
            return;
        }
        let now_ns = self.now_ns();
        let out = &mut outbox.bytes;
        while session.outstanding() < ARMING_WINDOW {
            let Some(at) = watcher.queue.pop_front() else { break };
            let watch = &mut watcher.watches[at as usize];
            let tag = |kind| tag(kind, at as usize, now_ns);
            shared.path.clear();
            self.settings.keys.push_path(watch.key, &mut shared.path);
            let path = &shared.path;
            if watcher.settling {
                if watch.arming == Arming::Armed {
                    session.submit(OpCode::Exists, tag(Kind::Settle), out, |out| {
                        encode::path_watch(out, path, false);
                    });
                }
                continue;
            }
            if watcher.kind == WatchKind::OneShot {
                if watch.arming != Arming::Idle {
                    continue;
                }
                watch.arming = Arming::Asked;
                let mark = Some(WatchChange::Sets(Mark::Data, path.clone()));
                session.submit_watching(OpCode::GetData, tag(Kind::Arm), mark, out, |out| {
                    encode::path_watch(out, path, true);
                });
                continue;
            }
            // One recursive watch covers a subtree; every other watch needs its own. A watch that stands again after
            // a reconnect is only looked at.
            if watch.arming == Arming::Idle && (!watcher.subtree || at == 0) {
                let (mode, mark) = match watcher.kind {
                    WatchKind::Recursive => (1, Mark::Recursive),
                    _ => (0, Mark::Persistent),
                };
                let on = if watcher.subtree { self.settings.keys.root() } else { path.as_str() };
                let mark = Some(WatchChange::Sets(mark, on.to_owned()));
                session.submit_watching(OpCode::AddWatch, tag(Kind::AddWatch), mark, out, |out| {
                    encode::path_number(out, on, mode);
                });
            }
            watch.arming = Arming::Asked;
            session.submit(OpCode::Exists, tag(Kind::Learn), out, |out| encode::path_watch(out, path, false));
        }
        session.wrote(now_ns);
    }

    /// An answer to one of a watcher's requests.
    pub(super) fn watch_replied(&self, shared: &mut Shared, load: &mut Load, reply: &Reply<'_, Tag>) {
        let asker = Asker { session: load.number, member: load.member, seen: reply.seen };
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(watch) = watcher.watches.get_mut(reply.tag.about as usize) else { return };
        let key = watch.key;
        let (fresh, stat) = match (reply.tag.kind, reply.err) {
            (Kind::Disarm, err) => {
                // A server that does not know the request leaves the watches where they are.
                if err == 0 || err == ErrorCode::NoWatcher.code() {
                    watcher.removing = watcher.removing.saturating_sub(1);
                }
                return;
            }
            (Kind::Arm, 0) => {
                let fresh = shared.views.value(key, reply.body, &self.filler, asker);
                (fresh, reply.body.len().checked_sub(STAT).map(|at| &reply.body[at..]))
            }
            (Kind::Learn | Kind::Settle, 0) => {
                (shared.views.stat(key, reply.body, Writer::NONE, asker), Some(reply.body))
            }
            (Kind::Arm | Kind::Learn | Kind::AddWatch, err) if err != 0 => {
                return self.refused_to_arm(shared, watcher, reply.tag.about as u32, err, asker);
            }
            (Kind::Settle, _) => {
                watch.arming = Arming::Idle;
                return;
            }
            _ => return,
        };
        let Some(version) = stat.and_then(version_of) else { return };
        let stood = watch.version;
        let behind = i64::from(version) - i64::from(stood);
        let judged = match (reply.tag.kind, watch.arming) {
            (Kind::Settle, Arming::Armed) => {
                watch.arming = Arming::Idle;
                let missed = missed_by(watcher.kind, behind);
                shared.dropped(missed, || {
                    format!(
                        "{asker} was not told that key {key} changed from version {stood} to {version}, though its \
                         watch was armed"
                    )
                });
                watcher.kind != WatchKind::OneShot
            }
            (Kind::Settle, _) => return,
            (_, Arming::Asked) => {
                let counts = &mut shared.log.counts;
                counts.armed += 1;
                let seen = std::mem::replace(&mut watch.seen, true);
                if seen && behind > 0 {
                    match watcher.kind {
                        WatchKind::OneShot => counts.coalesced += behind as u64,
                        WatchKind::Persistent | WatchKind::Recursive => counts.while_away += behind as u64,
                    }
                }
                (watch.arming, watch.refused_ns) = (Arming::Armed, 0);
                seen
            }
            _ => false,
        };
        watch.version = version;
        // A stale read is told as such.
        if judged && behind < 0 && fresh {
            shared.doubled(behind.unsigned_abs(), || {
                format!("{asker} was told that key {key} had reached version {stood}, and then shown version {version}")
            });
        }
    }

    /// A watch was not armed: it is asked for again for some time, and then given up.
    #[cold]
    fn refused_to_arm(&self, shared: &mut Shared, watcher: &mut Watcher, at: u32, err: i32, asker: Asker) {
        let now_ns = self.now_ns();
        let watch = &mut watcher.watches[at as usize];
        // Of a persistent watch and the read behind it each may be refused.
        if watch.arming != Arming::Asked {
            return;
        }
        watch.arming = Arming::Idle;
        let since_ns = match watch.refused_ns {
            0 => now_ns,
            since_ns => since_ns,
        };
        watch.refused_ns = since_ns;
        let path = self.settings.keys.path(watch.key);
        let why = format!(
            "{asker} asked for a watch on {path} and was answered {}",
            super::client::error_name(err)
        );
        if now_ns - since_ns < REFUSED_LIMIT.as_nanos() as u64 {
            *self.control.trouble.lock().expect("no thread panics holding it") = Some(why);
            if watcher.wanted {
                watcher.refused.push(at);
                watcher.ask_again_ns = now_ns + REFUSED_PAUSE_NS;
            }
            return;
        }
        let why = format!("{why} for {REFUSED_LIMIT:?}");
        shared.log.counts.unarmed += 1;
        shared.log.counts.first_unarmed.get_or_insert_with(|| why.clone());
        self.control.unarmed.lock().expect("no thread panics holding it").get_or_insert(why);
    }

    /// Asks again for watches that were refused a while ago.
    pub(super) fn arm_what_was_refused(&self, now_ns: u64) {
        for slot in &self.slots[self.issuers..] {
            let slot = &mut *slot.borrow_mut();
            let Role::Watcher(watcher) = &mut slot.load.role else { continue };
            if watcher.refused.is_empty() || now_ns < watcher.ask_again_ns {
                continue;
            }
            let again = std::mem::take(&mut watcher.refused);
            if !watcher.settling {
                watcher.queue.extend(again);
            }
            self.arm(&mut self.shared.borrow_mut(), slot);
            slot.outbox.flush();
        }
    }

    /// A watch event.
    pub(super) fn fired(
        &self,
        shared: &mut Shared,
        load: &mut Load,
        at_ns: u64,
        kind: EventType,
        path: &str,
    ) {
        let who = |load: &Load| format!("session {} at server {}", load.number, load.member + 1);
        let asked = match &load.role {
            Role::Issuer => false,
            Role::Watcher(watcher) => {
                let known = match watcher.subtree {
                    true => path.starts_with(self.settings.keys.root()),
                    false => watcher.by_path.contains_key(path),
                };
                let kinds = kind != EventType::NodeChildrenChanged || watcher.kind == WatchKind::Persistent;
                known && kinds && (watcher.wanted || watcher.removing > 0)
            }
        };
        if !asked {
            return shared
                .unasked(|| format!("{} was told {kind:?} of {path}, which it did not watch", who(load)));
        }
        let teller = (load.number, load.member);
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(&at) = watcher.by_path.get(path) else { return };
        if kind != EventType::NodeDataChanged {
            return;
        }
        let watch = &mut watcher.watches[at as usize];
        if watch.arming != Arming::Armed {
            // A persistent watch that stands while its version is being learned: the answer will show this change. One-shot watches
            // that are being taken away may fire until the server hears of it.
            let fires_once = watcher.kind == WatchKind::OneShot;
            if fires_once && watcher.wanted && watcher.removing == 0 && !watcher.settling {
                let (session, member) = teller;
                shared.doubled(1, || {
                    let server = member + 1;
                    format!("session {session} at server {server} was told of {path} twice, by a watch that fires once")
                });
            }
            return;
        }
        watch.version = watch.version.wrapping_add(1);
        shared.log.delivered(Delivery { key: watch.key, version: watch.version, at_ns });
        if watcher.kind == WatchKind::OneShot {
            watch.arming = Arming::Idle;
            if watcher.wanted {
                watcher.queue.push_back(at);
            }
        }
    }

    /// Looks a last time at every armed watch, when nothing is written any more: what each has told must be what there is.
    pub(super) async fn settle_watches(&self) {
        for slot in &self.slots[self.issuers..] {
            let slot = &mut *slot.borrow_mut();
            let Role::Watcher(watcher) = &mut slot.load.role else { continue };
            watcher.settling = true;
            watcher.queue.clear();
            if watcher.wanted && slot.session.state() == State::Attached {
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            }
            self.arm(&mut self.shared.borrow_mut(), slot);
            slot.outbox.flush();
        }
        let started = Instant::now();
        let busy = |slot: &Slot| match &slot.load.role {
            Role::Watcher(watcher) => {
                let left = !watcher.queue.is_empty() || slot.session.outstanding() > 0;
                left && slot.session.state() == State::Attached
            }
            Role::Issuer => false,
        };
        while started.elapsed() < SETTLE_LIMIT
            && self.slots[self.issuers..].iter().any(|slot| busy(&slot.borrow()))
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Shared {
    #[cold]
    fn doubled(&mut self, times: u64, how: impl FnOnce() -> String) {
        self.log.counts.duplicate += times;
        self.views.promises.broke(Promise::WatchDoubled, times, how);
    }

    fn dropped(&mut self, times: u64, how: impl FnOnce() -> String) {
        self.log.counts.missing += times;
        self.views.promises.broke(Promise::WatchDropped, times, how);
    }

    #[cold]
    fn unasked(&mut self, how: impl FnOnce() -> String) {
        self.log.counts.unasked += 1;
        self.views.promises.broke(Promise::WatchUnasked, 1, how);
    }
}

/// Takes a watcher's watches away. What still stands is judged by one last read: events come before the data that they are about. Not
/// so a subtree's, whose reads would be a load of their own on the phase that follows.
fn disarm(settings: &Settings, watcher: &mut Watcher, session: &mut Session<Tag>, out: &mut bytes::BytesMut) {
    if session.state() != State::Attached {
        // They are not to be set again by the next connection.
        session.forget_watches();
        watcher.watches.iter_mut().for_each(|watch| watch.arming = Arming::Idle);
        return;
    }
    let mut path = String::new();
    for (at, watch) in watcher.watches.iter_mut().enumerate() {
        if watch.arming == Arming::Armed && !watcher.subtree {
            path.clear();
            settings.keys.push_path(watch.key, &mut path);
            session.submit(OpCode::Exists, tag(Kind::Settle, at, 0), out, |out| {
                encode::path_watch(out, &path, false);
            });
        } else {
            watch.arming = Arming::Idle;
        }
    }
    let any = 3;
    let removed = if watcher.subtree { 1 } else { watcher.watches.len() };
    for (at, watch) in watcher.watches.iter().enumerate().take(removed) {
        path.clear();
        match watcher.subtree {
            true => path.push_str(settings.keys.root()),
            false => settings.keys.push_path(watch.key, &mut path),
        }
        watcher.removing += 1;
        let change = Some(WatchChange::Removes(path.clone()));
        session.submit_watching(OpCode::RemoveWatches, tag(Kind::Disarm, at, 0), change, out, |out| {
            encode::path_number(out, &path, any);
        });
    }
}
