//! A disk that loses what it had: the middle of a member's log is damaged while the member is down.
//!
//! The damage is always one that recovery can know of, and no more members are damaged than an ensemble must
//! bear. What is judged: recovery finds it; the member neither leads nor serves before it has a leader's whole
//! state; and, by all other judges, nothing acknowledged is lost.

use std::collections::BTreeSet;

use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::disk::{Dir, Disk as _};
use zoometry_replica::storage::log::{self, LogReader};
use zoometry_replica::storage::recovery::{Access, RecoveredStore, recover_store};
use zoometry_replica::storage::{RecoveryOptions, snapshot};
use zoometry_replica::zab::ServerId;
use zoometry_wire::Zxid;

use super::{World, store_config};
use crate::random::Random;

/// One world in so many knows damage.
pub(super) const WORLDS: usize = 3;
/// In such a world a crash damages once in so many times, if it may.
const CRASHES: usize = 3;
/// Bytes that a zeroed block takes.
const BLOCK_BYTES: usize = 300;

impl World {
    /// A member has crashed: its log may be damaged.
    pub(super) fn damage_log(&mut self, id: ServerId) {
        let is_bearable = {
            let of_voters = self.voters.iter().filter(|voter| self.machine(**voter).is_damaged).count();
            !self.machine(id).is_damaged
                && (!self.voters.contains(&id) || of_voters < (self.voters.len() - 1) / 2)
        };
        let Some(random) = &mut self.damages else { return };
        if self.healed_us.is_some() || !is_bearable || !random.one_in(CRASHES) {
            return;
        }
        let whole = &self.machines[id.0 as usize - 1].disk;
        let disk = whole.fork();
        let Some(what) = damage(&disk, random) else { return };
        let found = look(&disk);
        let (before, after) = (zxids(whole), zxids(&disk));
        let base = found.found.snapshot.unwrap_or(Zxid(0));
        let has_gap = before.difference(&after).any(|missing| {
            *missing > base && after.iter().any(|kept| kept > missing && kept.epoch() == missing.epoch())
        });
        let is_found = found.found.damage.is_some();
        assert!(
            is_found || !has_gap,
            "{id}: {what}, and recovery does not see that transactions are missing"
        );
        if is_found {
            self.note(|| format!("{id}'s disk is damaged: {what}"));
            let machine = self.machine_mut(id);
            machine.disk = disk;
            machine.is_damaged = true;
        }
    }

    /// A member with a hole in its state has no part in the ensemble.
    pub(super) fn judge_hole(&self, id: ServerId) {
        assert!(!self.machine(id).has_hole, "{id} leads or serves with a hole in its state");
    }
}

fn look(disk: &MemDisk) -> RecoveredStore {
    let options = RecoveryOptions { access: Access::ReadOnly, ..RecoveryOptions::default() };
    recover_store(disk, options, store_config()).expect("the oldest snapshot is as it was")
}

/// The transactions of all log files that can be read.
fn zxids(disk: &MemDisk) -> BTreeSet<Zxid> {
    let mut found = BTreeSet::new();
    for (_, name) in log::list(disk).expect("list") {
        let Ok(mut reader) = LogReader::open(disk, &name) else { continue };
        while let Ok(Some(entry)) = reader.next_entry() {
            found.insert(entry.record.header.zxid);
        }
    }
    found
}

/// Damages a log file that has another one with transactions behind it; newer snapshots go as well, so that the file
/// is needed. Says what was done; `None` if there is no such file.
fn damage(disk: &MemDisk, random: &mut Random) -> Option<String> {
    let mut snapshots = snapshot::list(disk).expect("list");
    let oldest = snapshots.pop()?;
    let logs = log::list(disk).expect("list");
    let mut files: Vec<(String, Vec<usize>)> = Vec::new();
    for (_, name) in &logs[log::start_index(&logs, oldest.zxid)..] {
        let mut reader = LogReader::open(disk, name).ok()?;
        let mut starts = Vec::new();
        while reader.next_entry().ok()?.is_some() {
            starts.push(reader.offset() as usize);
        }
        if !starts.is_empty() {
            files.push((name.clone(), starts));
        }
    }
    files.pop()?;
    if files.is_empty() {
        return None;
    }
    let (name, ends) = &files[random.below(files.len())];
    let gone = snapshots.len();
    for newer in snapshots {
        if random.one_in(2) {
            disk.edit(Dir::Snap, &newer.name, |bytes| bytes[20] ^= 1);
        } else {
            disk.remove(Dir::Snap, &newer.name).expect("remove");
        }
    }
    disk.sync_dir(Dir::Snap).expect("sync");
    let end = ends[random.below(ends.len())];
    let what = match random.below(6) {
        0 => {
            disk.edit(Dir::Log, name, |bytes| bytes[end - 1] ^= 1);
            format!("the end of the record before byte {end} is flipped")
        }
        1 => {
            disk.edit(Dir::Log, name, |bytes| bytes[end - 2] ^= 1);
            format!("the record before byte {end} is flipped")
        }
        2 => {
            disk.edit(Dir::Log, name, |bytes| bytes.truncate(end - 5));
            format!("cut at byte {}", end - 5)
        }
        3 => {
            disk.edit(Dir::Log, name, Vec::clear);
            "emptied".into()
        }
        4 => {
            disk.remove(Dir::Log, name).expect("remove");
            disk.sync_dir(Dir::Log).expect("sync");
            "removed".into()
        }
        _ => {
            let block = end - 8;
            disk.edit(Dir::Log, name, |bytes| {
                let upto = bytes.len().min(block + BLOCK_BYTES);
                bytes[block..upto].fill(0);
            });
            format!("zeros from byte {block}")
        }
    };
    Some(format!("{name}: {what}; {gone} newer snapshots are gone"))
}
