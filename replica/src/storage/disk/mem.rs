//! A disk in memory that can lose power.
//!
//! Every file has a synced image and a list of changes since; every directory has its durable names and a
//! list of changes since. [`MemDisk::crash`] keeps what was synced and, by a seed, a prefix of the rest: some
//! whole changes, and of one write perhaps only a part (a torn tail). Faults are armed from outside: stop
//! everything at the n-th operation, fail it, run out of space, look at or delay every sync.
//!
//! What it does not simulate: reordering between unsynced writes of one file, and bits that rot by
//! themselves (tests change bytes with [`MemDisk::edit`]).

use super::{Dir, Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

type SyncHook = Arc<dyn Fn(&str) + Send + Sync>;

/// The disk; clones share it.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    split: bool,
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<(Dir, String), u64>,
    durable_names: BTreeMap<(Dir, String), u64>,
    /// Changes of names since the last sync of their directory, in order.
    name_changes: Vec<NameChange>,
    next_file: u64,
    /// Changing operations so far.
    operations: u64,
    freeze_at: Option<u64>,
    fail_at: Option<(u64, i32)>,
    /// Crashes so far; handles from before one are dead.
    life: u64,
    space_bytes: Option<u64>,
    on_sync: Option<SyncHook>,
}

#[derive(Clone, Default)]
struct FileState {
    name: String,
    live: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone)]
enum NameChange {
    Set((Dir, String), u64),
    Remove((Dir, String)),
}

impl MemDisk {
    /// An empty disk whose two directories are one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk with separate log and snapshot directories.
    pub fn split() -> Self {
        let disk = Self::new();
        disk.lock().split = true;
        disk
    }

    /// A disk of its own with the same content, faults and unsynced changes.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Lets `operations` more changes happen; the one after them, and everything from then on, fails. What
    /// that one was about to do may or may not survive the crash that is to follow.
    pub fn freeze_after(&self, operations: u64) {
        let mut state = self.lock();
        state.freeze_at = Some(state.operations + operations);
    }

    /// Lets `operations` more changes happen and fails one with this error number, without effect.
    pub fn fail_after(&self, operations: u64, errno: i32) {
        let mut state = self.lock();
        state.fail_at = Some((state.operations + operations, errno));
    }

    /// Whether the freeze has struck.
    pub fn is_frozen(&self) -> bool {
        let state = self.lock();
        state.freeze_at.is_some_and(|at| state.operations > at)
    }

    /// Changing operations so far: run a scenario once to learn how many places there are to stop it.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Files may hold so many bytes together; a write beyond is refused as on a full disk.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.lock().space_bytes = bytes;
    }

    /// Calls `hook` with the file's name in every sync, before it takes effect. It may sleep, and it must not
    /// use this disk.
    pub fn on_sync(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        self.lock().on_sync = Some(Arc::new(hook));
    }

    /// Power off and on: of what was not synced a part survives, chosen by `seed` (0: nothing). Faults are
    /// disarmed, open handles are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut random = Random(seed);
        let mut names = std::mem::take(&mut state.durable_names);
        let survivors = random.up_to(state.name_changes.len(), seed);
        for change in state.name_changes.drain(..).take(survivors) {
            apply_name(&mut names, change);
        }
        for file in state.files.values_mut() {
            file.crash(&mut random, seed);
        }
        let alive: std::collections::BTreeSet<u64> = names.values().copied().collect();
        state.files.retain(|id, _| alive.contains(id));
        state.durable_names = names.clone();
        state.names = names;
        state.freeze_at = None;
        state.fail_at = None;
        state.life += 1;
    }

    /// A file's present bytes.
    pub fn contents(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let id = state.names.get(&state.key(dir, name))?;
        Some(state.files[id].live.clone())
    }

    /// Changes a file's bytes behind everybody's back, durably; creates it if it is not there.
    pub fn edit(&self, dir: Dir, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let id = state.file_for(dir, name);
        let key = state.key(dir, name);
        state.durable_names.insert(key, id);
        let file = state.files.get_mut(&id).expect("a name leads to a file");
        change(&mut file.live);
        file.synced = file.live.clone();
        file.changes.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.lock().names.keys().map(|(dir, name)| (dir, name))).finish()
    }
}

impl State {
    /// One directory answers to both names unless the disk is split.
    fn key(&self, dir: Dir, name: &str) -> (Dir, String) {
        (if self.split { dir } else { Dir::Snap }, name.to_owned())
    }

    /// Counts a changing operation; says whether it takes effect, and what it returns.
    fn count(&mut self) -> (bool, io::Result<()>) {
        self.operations += 1;
        if let Some((at, errno)) = self.fail_at.filter(|(at, _)| self.operations == at + 1) {
            self.fail_at = None;
            debug_assert_eq!(self.operations, at + 1);
            return (false, Err(io::Error::from_raw_os_error(errno)));
        }
        match self.freeze_at {
            Some(at) if self.operations == at + 1 => (true, Err(io::Error::other("the power is off"))),
            Some(at) if self.operations > at => (false, Err(io::Error::other("the power is off"))),
            _ => (true, Ok(())),
        }
    }

    fn file_for(&mut self, dir: Dir, name: &str) -> u64 {
        let key = self.key(dir, name);
        if let Some(id) = self.names.get(&key) {
            return *id;
        }
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, FileState { name: name.to_owned(), ..FileState::default() });
        self.change_name(NameChange::Set(key, id));
        id
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, change.clone());
        self.name_changes.push(change);
    }

    /// Whether the files may grow by `more` bytes.
    fn has_space(&self, more: u64) -> bool {
        let used = || self.names.values().map(|id| self.files[id].live.len() as u64).sum::<u64>();
        self.space_bytes.is_none_or(|limit| used() + more <= limit)
    }
}

fn apply_name(names: &mut BTreeMap<(Dir, String), u64>, change: NameChange) {
    match change {
        NameChange::Set(key, id) => {
            names.retain(|_, other| *other != id);
            names.insert(key, id);
        }
        NameChange::Remove(key) => {
            names.remove(&key);
        }
    }
}

impl FileState {
    fn change(&mut self, change: Change) {
        apply(&mut self.live, &change, usize::MAX);
        self.changes.push(change);
    }

    fn crash(&mut self, random: &mut Random, seed: u64) {
        let survivors = random.up_to(self.changes.len(), seed);
        for (at, change) in self.changes.drain(..).enumerate().take(survivors + 1) {
            // The first that does not survive whole may survive in part.
            let kept = match &change {
                _ if at < survivors => usize::MAX,
                Change::Write { bytes, .. } => random.up_to(bytes.len(), seed),
                Change::SetLen(_) => continue,
            };
            apply(&mut self.synced, &change, kept);
        }
        self.live = self.synced.clone();
    }
}

fn apply(image: &mut Vec<u8>, change: &Change, kept: usize) {
    match change {
        Change::Write { bytes, .. } if bytes.is_empty() || kept == 0 => {}
        Change::Write { offset, bytes } => {
            let bytes = &bytes[..bytes.len().min(kept)];
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => image.resize(*len as usize, 0),
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        let state = self.lock();
        let place = state.key(dir, "").0;
        Ok(state.names.keys().filter(|(at, _)| *at == place).map(|(_, name)| name.clone()).collect())
    }

    fn open(&self, dir: Dir, name: &str) -> io::Result<MemFile> {
        let state = self.lock();
        match state.names.get(&state.key(dir, name)) {
            Some(id) => Ok(MemFile { disk: self.clone(), id: *id, life: state.life }),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<MemFile> {
        let mut state = self.lock();
        let (effective, result) = state.count();
        if effective {
            let id = state.file_for(dir, name);
            let file = state.files.get_mut(&id).expect("a name leads to a file");
            if !file.live.is_empty() {
                file.change(Change::SetLen(0));
            }
        }
        drop(state);
        result.and_then(|()| self.open(dir, name))
    }

    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let key = state.key(dir, from);
        let id = *state.names.get(&key).ok_or(io::ErrorKind::NotFound)?;
        let (effective, result) = state.count();
        if effective {
            let key = state.key(dir, to);
            state.change_name(NameChange::Set(key, id));
            state.files.get_mut(&id).expect("a name leads to a file").name = to.to_owned();
        }
        result
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let key = state.key(dir, name);
        if !state.names.contains_key(&key) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (effective, result) = state.count();
        if effective {
            state.change_name(NameChange::Remove(key));
        }
        result
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        let mut state = self.lock();
        let (effective, result) = state.count();
        if effective && result.is_ok() {
            let place = state.key(dir, "").0;
            let (synced, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.name_changes).into_iter().partition(|change| match change {
                    NameChange::Set((at, _), _) | NameChange::Remove((at, _)) => *at == place,
                });
            state.name_changes = left;
            for change in synced {
                apply_name(&mut state.durable_names, change);
            }
        }
        result
    }

    fn is_split(&self) -> bool {
        self.lock().split
    }

    fn describe(&self, dir: Dir, name: &str) -> String {
        match self.lock().key(dir, name).0 {
            Dir::Log => format!("mem/log/{name}"),
            Dir::Snap => format!("mem/{name}"),
        }
    }
}

/// A file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile {
    disk: MemDisk,
    id: u64,
    life: u64,
}

impl MemFile {
    fn with<T>(&self, act: impl FnOnce(&FileState) -> T) -> io::Result<T> {
        let state = self.disk.lock();
        match state.files.get(&self.id).filter(|_| state.life == self.life) {
            Some(file) => Ok(act(file)),
            None => Err(io::Error::other("this file was opened before a crash")),
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let len = self.len()?;
        let mut state = self.disk.lock();
        let end = match &change {
            Change::Write { offset, bytes } => offset + bytes.len() as u64,
            Change::SetLen(len) => *len,
        };
        if !state.has_space(end.saturating_sub(len)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (effective, result) = state.count();
        if effective {
            state.files.get_mut(&self.id).expect("looked up above").change(change);
        }
        result
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|file| {
            let there = file.live.get(offset as usize..).unwrap_or_default();
            let read = there.len().min(buffer.len());
            buffer[..read].copy_from_slice(&there[..read]);
            read
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn sync(&mut self) -> io::Result<()> {
        let name = self.with(|file| file.name.clone())?;
        let hook = self.disk.lock().on_sync.clone();
        if let Some(hook) = hook {
            hook(&name);
        }
        let mut state = self.disk.lock();
        let (effective, result) = state.count();
        if effective && result.is_ok() {
            let file = state.files.get_mut(&self.id).expect("looked up above");
            for change in std::mem::take(&mut file.changes) {
                apply(&mut file.synced, &change, usize::MAX);
            }
            debug_assert_eq!(file.synced.len(), file.live.len());
        }
        result
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.change(Change::SetLen(len)) } else { Ok(()) }
    }
}

/// splitmix64; enough to choose what survives.
struct Random(u64);

impl Random {
    /// A number from 0 to `limit`; with seed 0 always 0.
    fn up_to(&mut self, limit: usize, seed: u64) -> usize {
        if seed == 0 {
            return 0;
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % (limit as u64 + 1)) as usize
    }
}
