//! After the load: is everything there that was acknowledged, and nothing that was deleted?
//!
//! Asked of one member, behind a `sync`. Keys that were written are read again and compared with what sessions were shown of them
//! ([`Views`]); the znodes that the load created are looked for one by one, and in the lists of their parents.

use super::Report;
use super::client::{Client, error_name};
use super::encode::{self, Filler};
use super::ledger::Acknowledged;
use super::prepare::Places;
use super::receiving::STAT;
use super::slot::{Scratch, Scratches};
use super::views::{Asker, SESSION_AFTERWARDS, Writer};
use crate::keys::KeySpace;
use crate::promises::{Promise, Promises};
use crate::spec::Spec;
use anyhow::{Result, bail};
use bytes::BytesMut;
use rustc_hash::FxHashSet;
use zoometry_wire::jute::Record;
use zoometry_wire::{ErrorCode, OpCode, Request, Stat, Zxid};

/// Values of written keys are read again if none can be longer; of longer ones only the Stat.
const VALUE_MAX: u32 = 16 << 10;
/// Lists of more names than this are not asked for: a session that used so many leaves its deletes unchecked.
const NAMES_MAX: u32 = 50_000;

/// What looking for acknowledged writes found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Acknowledged writes that were looked for.
    pub acknowledged: u64,
    /// Of those, certainly not there.
    pub lost: u64,
    /// Writes whose outcome is unknown; each could hide one loss on its key.
    pub unknown: u64,
    /// The first loss, in words.
    pub first: Option<String>,
    /// Every promise that was checked per reply or at the end.
    pub promises: Promises,
}

/// What one session left in its place.
#[derive(Debug)]
pub(crate) struct Leftover {
    /// Its number in the run.
    pub(super) session: u32,
    /// The cluster acknowledged its end, so that it left no ephemerals.
    pub(super) closed: bool,
    pub(super) znodes: Scratches,
}

impl Leftover {
    fn place(&self, places: &Places) -> String {
        format!("{}/{}", places.scratch, self.session)
    }

    fn path(&self, places: &Places, znode: Scratch) -> String {
        let mut path = self.place(places);
        znode.push_name(&mut path);
        path
    }

    /// Znodes that must be there.
    fn expected(&self) -> impl Iterator<Item = Scratch> {
        self.znodes.created.iter().copied().filter(|znode| !matches!(znode, Scratch::Ephemeral(_)))
    }

    /// Of the names in a list, those whose deletion was acknowledged.
    fn undone(&self, listed: &FxHashSet<Scratch>) -> Vec<Scratch> {
        // The end of its session deleted the ephemerals.
        let lives = |znode: &&Scratch| !(self.closed && matches!(znode, Scratch::Ephemeral(_)));
        let living = self.znodes.created.iter().filter(lives);
        let known: FxHashSet<Scratch> = living.chain(&self.znodes.uncertain).copied().collect();
        let deleted = |znode: &&Scratch| match **znode {
            Scratch::Persistent(n) | Scratch::Ephemeral(n) => n < self.znodes.next && !known.contains(*znode),
            Scratch::Sequential(_) => !known.contains(*znode),
        };
        let mut undone: Vec<Scratch> = listed.iter().filter(deleted).copied().collect();
        undone.sort_unstable_by_key(|znode| znode.pack());
        // Each sequential create without an answer may have made one, whose name is not known.
        let untold = self.znodes.uncertain.iter().filter(|znode| **znode == Scratches::UNTOLD).count();
        let sequential = |znode: &Scratch| matches!(znode, Scratch::Sequential(_));
        let mut allowed = untold.min(undone.iter().filter(|znode| sequential(znode)).count());
        undone.retain(|znode| {
            let spared = sequential(znode) && allowed > 0;
            allowed -= usize::from(spared);
            !spared
        });
        undone
    }
}

/// Looks for everything that was acknowledged.
pub(crate) async fn verify(
    client: &mut Client,
    spec: &Spec,
    places: &Places,
    keys: &KeySpace,
    report: &mut Report,
) -> Result<Verified> {
    let (gone, first_gone) = report.ledger.all_gone();
    let mut verified = Verified {
        acknowledged: gone,
        lost: gone,
        unknown: report.ledger.unknown_total(),
        first: first_gone.map(|path| format!("{path} was gone when it was to be deleted")),
        promises: Promises::default(),
    };
    // This member may be behind what others acknowledged.
    client.call(&Request::Sync(places.run.clone())).await?.ok();
    written_keys(client, spec, keys, report, &mut verified).await?;
    let listed = lists(client, places, report).await?;
    created_znodes(client, places, report, &listed, &mut verified).await?;
    verified.promises = std::mem::take(&mut report.views.promises);
    Ok(verified)
}

async fn written_keys(
    client: &mut Client,
    spec: &Spec,
    keys: &KeySpace,
    report: &mut Report,
    verified: &mut Verified,
) -> Result<()> {
    let written = report.ledger.acknowledged_keys();
    let filler = Filler::of(spec);
    let whole = filler.largest() <= VALUE_MAX as usize;
    let asker = Asker { session: SESSION_AFTERWARDS, member: 0, seen: Zxid(i64::MAX) };
    let views = &mut report.views;
    let mut path = String::new();
    let make = |index: u64, out: &mut BytesMut| {
        path.clear();
        keys.push_path(written[index as usize].0, &mut path);
        encode::path_watch(out, &path, false);
        if whole { OpCode::GetData } else { OpCode::Exists }
    };
    client
        .pipeline(written.len() as u64, make, |index, err, body| {
            let (key, acknowledged) = written[index as usize];
            let stat = match err {
                0 => Some(Stat::from_bytes(&body[body.len().saturating_sub(STAT)..])?),
                err if err == ErrorCode::NoNode.code() => None,
                err => bail!("looking for acknowledged write {index}: {}", error_name(err)),
            };
            verified.acknowledged += u64::from(acknowledged.writes);
            let missing = acknowledged.missing_from(stat.as_ref());
            verified.lost += missing;
            match missing {
                0 if whole => drop(views.value(key, body, &filler, asker)),
                0 => drop(views.stat(key, body, Writer::NONE, asker)),
                _ if verified.first.is_none() => {
                    verified.first = Some(describe_loss(&keys.path(key), &acknowledged, stat));
                }
                _ => {}
            }
            Ok(())
        })
        .await
}

fn describe_loss(path: &str, expected: &Acknowledged, stat: Option<Stat>) -> String {
    match stat {
        None => format!("{path} is gone"),
        Some(stat) => format!(
            "{path}: {} writes acknowledged, the last as {}, but the znode is at version {}, mzxid {}",
            expected.writes, expected.zxid, stat.version, stat.mzxid
        ),
    }
}

/// Asks for the children of every session's place; tells deletes that were undone. `None` for a list that was not asked for or
/// given.
async fn lists(
    client: &mut Client,
    places: &Places,
    report: &mut Report,
) -> Result<Vec<Option<FxHashSet<Scratch>>>> {
    let scratch = &report.scratch;
    let promises = &mut report.views.promises;
    let asked: Vec<usize> = (0..scratch.len())
        .filter(|at| !scratch[*at].znodes.unjudged && scratch[*at].znodes.next <= NAMES_MAX)
        .collect();
    let mut listed = vec![None; scratch.len()];
    let make = |index: u64, out: &mut BytesMut| {
        encode::path_watch(out, &scratch[asked[index as usize]].place(places), false);
        OpCode::GetChildren
    };
    client
        .pipeline(asked.len() as u64, make, |index, err, body| {
            if err != 0 {
                return Ok(());
            }
            let at = asked[index as usize];
            let (left, znodes) = (&scratch[at], &scratch[at].znodes);
            let names = Vec::<String>::from_bytes(body)?;
            let names: FxHashSet<Scratch> = names.iter().filter_map(|name| Scratch::of_name(name)).collect();
            let undone = left.undone(&names);
            let deleted =
                (znodes.next as usize).saturating_sub(left.expected().count() + znodes.uncertain.len());
            promises.checked(Promise::UndoneDelete, deleted.max(undone.len()) as u64);
            promises.broke(Promise::UndoneDelete, undone.len() as u64, || {
                let path = left.path(places, undone[0]);
                match undone[0] {
                    Scratch::Ephemeral(_) => {
                        format!("{path} is there, an ephemeral that was deleted or whose session was closed")
                    }
                    _ => format!("{path} is there, and its deletion was acknowledged"),
                }
            });
            listed[at] = Some(names);
            Ok(())
        })
        .await?;
    Ok(listed)
}

/// Looks for the znodes that the load created and did not delete.
async fn created_znodes(
    client: &mut Client,
    places: &Places,
    report: &mut Report,
    listed: &[Option<FxHashSet<Scratch>>],
    verified: &mut Verified,
) -> Result<()> {
    let mut created: Vec<(u32, Scratch)> = Vec::new();
    for (at, left) in report.scratch.iter().enumerate() {
        created.extend(left.expected().map(|znode| (at as u32, znode)));
        report.views.promises.checked(Promise::WrongList, u64::from(listed[at].is_some()));
    }
    created.sort_unstable_by_key(|(at, znode)| (*at, znode.pack()));
    let path_of = |index: u64| {
        let (at, znode) = created[index as usize];
        report.scratch[at as usize].path(places, znode)
    };
    // A name that was given to two sequential znodes is there, but one of the two is not.
    for at in (1..created.len()).filter(|at| created[*at] == created[*at - 1]) {
        verified.lost += 1;
        verified.first.get_or_insert_with(|| format!("{} was created twice", path_of(at as u64)));
    }
    let promises = &mut report.views.promises;
    let make = |index: u64, out: &mut BytesMut| {
        encode::path_watch(out, &path_of(index), false);
        OpCode::Exists
    };
    client
        .pipeline(created.len() as u64, make, |index, err, _| {
            let (at, znode) = created[index as usize];
            verified.acknowledged += 1;
            if err == ErrorCode::NoNode.code() {
                verified.lost += 1;
                verified.first.get_or_insert_with(|| format!("{} is gone", path_of(index)));
            } else if err != 0 {
                bail!("looking for {}: {}", path_of(index), error_name(err));
            } else if listed[at as usize].as_ref().is_some_and(|names| !names.contains(&znode)) {
                promises.broke(Promise::WrongList, 1, || {
                    format!("{} is there, and the list of its parent's children lacks it", path_of(index))
                });
            }
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(created: &[Scratch], uncertain: &[Scratch], closed: bool) -> Leftover {
        let znodes =
            Scratches { created: created.to_vec(), next: 10, uncertain: uncertain.to_vec(), unjudged: false };
        Leftover { session: 3, closed, znodes }
    }

    #[test]
    fn only_an_acknowledged_delete_can_be_undone() {
        use Scratch::{Ephemeral as E, Persistent as P, Sequential as Q};
        let listed = FxHashSet::from_iter([P(1), P(2), P(3), E(4), E(5), Q(6), Q(7), P(10)]);
        // Created and still there; deleted without an answer; of someone else. Q(7): nobody knows of it.
        let undone = left(&[P(1), E(4), Q(6)], &[P(2)], false).undone(&listed);
        assert_eq!(undone, [P(3), E(5), Q(7)]);
        let undone = left(&[P(1), E(4), Q(6)], &[P(2)], true).undone(&listed);
        assert_eq!(undone, [P(3), E(4), E(5), Q(7)], "the session's end was acknowledged");
        let undone = left(&[P(1), E(4), Q(6)], &[P(2), P(3), E(5), Scratches::UNTOLD], false).undone(&listed);
        assert_eq!(undone, [], "a sequential create without an answer may have made Q(7)");
    }
}
