//! Watches: left, left again, counted when they fire, taken away.

use super::Settings;
use super::encode;
use super::receiving::{STAT, version_of};
use super::slot::{Kind, Load, Role, Slot, Tag};
use super::watching::{Arming, Delivery, Watcher, missed_by};
use super::worker::{Shared, Worker};
use crate::session::{Reply, Session, State, WatchKind as Mark};
use crate::spec::WatchKind;
use zoometry_wire::OpCode;
use zoometry_wire::records::EventType;

/// Requests for arming watches outstanding per watcher session.
const ARMING_WINDOW: usize = 256;

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
            let session = &mut slot.session;
            if wanted {
                watcher.watches.iter_mut().for_each(|watch| watch.arming = Arming::Idle);
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
            let tag = |kind| Tag {
                due_ns: now_ns,
                sent_ns: now_ns,
                about: u64::from(at),
                bytes: 0,
                phase: 0,
                kind,
            };
            shared.path.clear();
            self.settings.keys.push_path(watch.key, &mut shared.path);
            let path = &shared.path;
            if watcher.kind == WatchKind::OneShot {
                watch.arming = Arming::Asked;
                let mark = Some((Mark::Data, path.clone()));
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
                let mark = Some((mark, on.to_owned()));
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
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(watch) = watcher.watches.get_mut(reply.tag.about as usize) else { return };
        let stat = match (reply.tag.kind, reply.err) {
            (Kind::Arm, 0) => reply.body.len().checked_sub(STAT).map(|at| &reply.body[at..]),
            (Kind::Learn | Kind::Settle, 0) => Some(reply.body),
            (Kind::Arm | Kind::Learn | Kind::AddWatch, err) if err != 0 => {
                watch.arming = Arming::Idle;
                let name = super::client::error_name(err);
                let trouble = format!("arming a watch on key {}: {name}", watch.key);
                *self.control.trouble.lock().expect("no thread panics holding it") = Some(trouble);
                return;
            }
            _ => return,
        };
        let Some(version) = stat.and_then(version_of) else { return };
        let counts = &mut shared.log.counts;
        if reply.tag.kind == Kind::Settle {
            if watch.arming == Arming::Armed {
                counts.missing += missed_by(watcher.kind, i64::from(version) - i64::from(watch.version));
                watch.arming = Arming::Idle;
            }
            return;
        }
        if watch.arming == Arming::Asked {
            counts.armed += 1;
            let behind = i64::from(version) - i64::from(watch.version);
            if watch.seen && behind > 0 {
                match watcher.kind {
                    WatchKind::OneShot => counts.coalesced += behind as u64,
                    WatchKind::Persistent | WatchKind::Recursive => counts.while_away += behind as u64,
                }
            }
            watch.seen = true;
            watch.arming = Arming::Armed;
        }
        watch.version = version;
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
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(&at) = watcher.by_path.get(path) else { return };
        if kind != EventType::NodeDataChanged {
            return;
        }
        let watch = &mut watcher.watches[at as usize];
        if watch.arming != Arming::Armed {
            // A persistent watch that stands while its version is being learned: the answer will show this change. One-shot watches
            // that are being taken away may fire until the server hears of it.
            if watcher.kind == WatchKind::OneShot && watcher.wanted {
                shared.log.counts.duplicate += 1;
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
}

/// Takes a watcher's watches away. What still stands is judged by one last read: events come before the data that they are about. Not
/// so a subtree's, whose reads would be a load of their own on the phase that follows.
fn disarm(settings: &Settings, watcher: &mut Watcher, session: &mut Session<Tag>, out: &mut bytes::BytesMut) {
    if session.state() != State::Attached {
        watcher.watches.iter_mut().for_each(|watch| watch.arming = Arming::Idle);
        return;
    }
    let tag = |kind, at: usize| Tag { due_ns: 0, sent_ns: 0, about: at as u64, bytes: 0, phase: 0, kind };
    let mut path = String::new();
    for (at, watch) in watcher.watches.iter_mut().enumerate() {
        if watch.arming == Arming::Armed && !watcher.subtree {
            path.clear();
            settings.keys.push_path(watch.key, &mut path);
            session.submit(OpCode::Exists, tag(Kind::Settle, at), out, |out| {
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
        session.submit(OpCode::RemoveWatches, tag(Kind::Disarm, at), out, |out| {
            encode::path_number(out, &path, any);
        });
    }
}
