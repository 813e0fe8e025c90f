//! ACL lists, stored once however many znodes share them. Source: `ReferenceCountedACLCache.java`; reference
//! §7.5.
//!
//! Every list has an *index*, which is what snapshots hold: −1 for "no list, everybody may do everything",
//! otherwise a number above 0 that is never given twice. Inside, a znode holds a [`AclSlot`], a place in a
//! vector, so that a permission check is one step. Indexes and slots are local to a member.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::acl;
use zoometry_wire::{Acl, Id, records::perms};

/// The index of "everybody may do everything".
pub(super) const OPEN_INDEX: i64 = -1;

/// A list's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AclSlot(u32);

/// Everybody may do everything; always there.
pub(super) const OPEN: AclSlot = AclSlot(0);

#[derive(Debug, Clone)]
struct Entry {
    index: i64,
    list: Arc<[Acl]>,
    /// Permissions that `world:anyone` has: what they cover needs no look at the list.
    world: i32,
    uses: usize,
}

/// All lists of one tree.
#[derive(Debug, Clone)]
pub(super) struct AclTable {
    slots: Vec<Option<Entry>>,
    free: Vec<AclSlot>,
    by_list: BTreeMap<Arc<[Acl]>, AclSlot>,
    last_index: i64,
}

impl AclTable {
    pub(super) fn new() -> Self {
        let list: Arc<[Acl]> = Acl::open().into();
        let open = Entry { index: OPEN_INDEX, world: perms::ALL, list, uses: 0 };
        Self { slots: vec![Some(open)], free: Vec::new(), by_list: BTreeMap::new(), last_index: 0 }
    }

    fn entry(&self, slot: AclSlot) -> &Entry {
        self.slots[slot.0 as usize].as_ref().expect("a slot in use")
    }

    /// The slot of `list`, with one more use. An empty list forbids nothing and is the open one.
    pub(super) fn intern(&mut self, list: &[Acl]) -> AclSlot {
        if list.is_empty() {
            return OPEN;
        }
        let slot = match self.by_list.get(list) {
            Some(slot) => *slot,
            None => {
                let slot = self.put(self.last_index + 1, list.into());
                self.by_list.insert(self.list(slot).clone(), slot);
                slot
            }
        };
        self.hold(slot);
        slot
    }

    /// A list from a snapshot, under the index it has there, with no use yet.
    pub(super) fn restore(&mut self, index: i64, list: Arc<[Acl]>) -> AclSlot {
        let slot = self.put(index, list);
        self.by_list.entry(self.list(slot).clone()).or_insert(slot);
        slot
    }

    /// A place for an index that a snapshot's znode names and its table lacks: the snapshot was written while
    /// the list changed, and replay will bring it. Until then nobody may do anything there.
    pub(super) fn restore_missing(&mut self, index: i64) -> AclSlot {
        self.put(index, [nobody()].into())
    }

    fn put(&mut self, index: i64, list: Arc<[Acl]>) -> AclSlot {
        let world = list
            .iter()
            .filter(|entry| entry.id.scheme == "world" && entry.id.id == "anyone")
            .fold(0, |perms, entry| perms | entry.perms);
        self.last_index = self.last_index.max(index);
        let entry = Some(Entry { index, list, world, uses: 0 });
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot.0 as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                AclSlot(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 ACL lists"))
            }
        }
    }

    /// One more znode uses the list.
    pub(super) fn hold(&mut self, slot: AclSlot) {
        if slot != OPEN {
            self.slots[slot.0 as usize].as_mut().expect("a slot in use").uses += 1;
        }
    }

    /// One znode less uses the list; the last one takes it along.
    pub(super) fn release(&mut self, slot: AclSlot) {
        if slot == OPEN {
            return;
        }
        let entry = self.slots[slot.0 as usize].as_mut().expect("a slot in use");
        entry.uses -= 1;
        if entry.uses == 0 {
            self.drop_entry(slot);
        }
    }

    /// Drops the lists that no znode uses; behind a load.
    pub(super) fn purge_unused(&mut self) {
        for at in 1..self.slots.len() {
            if self.slots[at].as_ref().is_some_and(|entry| entry.uses == 0) {
                self.drop_entry(AclSlot(at as u32));
            }
        }
    }

    fn drop_entry(&mut self, slot: AclSlot) {
        let Some(entry) = self.slots[slot.0 as usize].take() else { return };
        if self.by_list.get(&entry.list) == Some(&slot) {
            self.by_list.remove(&entry.list);
        }
        self.free.push(slot);
    }

    pub(super) fn list(&self, slot: AclSlot) -> &Arc<[Acl]> {
        &self.entry(slot).list
    }

    pub(super) fn index(&self, slot: AclSlot) -> i64 {
        self.entry(slot).index
    }

    pub(super) fn allows(&self, slot: AclSlot, wanted: i32, ids: &[Id]) -> bool {
        let entry = self.entry(slot);
        entry.world & wanted != 0 || acl::allows(&entry.list, wanted, ids)
    }

    /// An index above all that are or were in use.
    pub(super) fn next_index(&self) -> i64 {
        self.last_index + 1
    }

    /// The lists with their indexes, in the order of these, without the open one.
    pub(super) fn lists(&self) -> Vec<(i64, &Arc<[Acl]>)> {
        let mut lists: Vec<_> =
            self.slots[1..].iter().flatten().map(|entry| (entry.index, &entry.list)).collect();
        lists.sort_unstable_by_key(|(index, _)| *index);
        lists
    }
}

/// An entry that grants nothing to anybody; alone in a list it leaves only `super` in.
pub(super) fn nobody() -> Acl {
    Acl { perms: 0, id: Id { scheme: "world".into(), id: "anyone".into() } }
}

/// `world:anyone` may read; the list of /zookeeper/config.
pub(super) fn read_only() -> [Acl; 1] {
    [Acl { perms: perms::READ, ..nobody() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(perms: i32) -> Vec<Acl> {
        vec![Acl { perms, id: Id { scheme: "digest".into(), id: "u:x".into() } }]
    }

    #[test]
    fn lists_are_shared_and_go_with_their_last_use() {
        let mut table = AclTable::new();
        let a = table.intern(&list(1));
        assert_eq!(table.index(a), 1);
        assert_eq!(table.intern(&list(1)), a);
        let b = table.intern(&list(2));
        assert_eq!(table.index(b), 2);
        table.release(a);
        table.release(a);
        assert_eq!(table.lists().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2]);
        // The place is used again, the index is not.
        let c = table.intern(&list(1));
        assert_eq!((c, table.index(c)), (a, 3));
        assert_eq!(table.intern(&[]), OPEN);
    }

    #[test]
    fn a_missing_list_lets_nobody_in() {
        let mut table = AclTable::new();
        let hole = table.restore_missing(9);
        table.hold(hole);
        assert!(!table.allows(hole, perms::ALL, &[]));
        assert_eq!(table.next_index(), 10);
        let kept = table.restore(4, list(1).into());
        table.purge_unused();
        assert!(table.slots[kept.0 as usize].is_none());
        assert_eq!(table.lists().len(), 1);
    }
}
