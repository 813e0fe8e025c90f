//! [`Disk`] over real files.
//!
//! Two directories, `dataDir/version-2` and `dataLogDir/version-2`, which may be one. Reservation is
//! `fallocate` on Linux; where a file system has none (or on another system) the file grows sparse instead,
//! which costs time in fdatasync and nothing else.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use zoometry_replica::storage::disk::{Dir, Disk, DiskFile};

/// The sub-directory that holds everything; its name is the version of the formats.
pub const VERSION_DIR: &str = "version-2";

/// The longest delay that `zoometry.syncDelayFile` may ask for.
const DELAY_MAX_MS: f64 = 60_000.0;

/// A member's files.
#[derive(Debug, Clone)]
pub struct FileDisk {
    snap_dir: Arc<Path>,
    log_dir: Arc<Path>,
    brake: Option<Arc<Brake>>,
}

impl FileDisk {
    /// Opens `data_dir` and `data_log_dir` (the same, if zoo.cfg has no `dataLogDir`), creating their
    /// `version-2` where missing. The error names the directory.
    pub fn open(data_dir: &Path, data_log_dir: &Path) -> io::Result<Self> {
        let snap_dir = prepare(data_dir)?;
        let log_dir = prepare(data_log_dir)?;
        Ok(Self { snap_dir: snap_dir.into(), log_dir: log_dir.into(), brake: None })
    }

    /// As [`open`](Self::open), for reading only: creates nothing, refuses what is not there.
    pub fn open_existing(data_dir: &Path, data_log_dir: &Path) -> io::Result<Self> {
        let existing = |dir: &Path| {
            let path = dir.join(VERSION_DIR);
            path.canonicalize().map_err(|error| named(error, "cannot open data directory", &path))
        };
        let (snap_dir, log_dir) = (existing(data_dir)?, existing(data_log_dir)?);
        Ok(Self { snap_dir: snap_dir.into(), log_dir: log_dir.into(), brake: None })
    }

    /// The same files on a disk that is as slow as a file says, from one sync to the next: a number of milliseconds,
    /// which every sync of a file takes longer. Without that file it is as fast as it is.
    pub fn slowed_by(self, file: PathBuf) -> Self {
        Self { brake: Some(Arc::new(Brake { file, is_told: AtomicBool::new(false) })), ..self }
    }

    /// Takes the directories for whoever holds what is returned: of two servers that write the same log, one loses
    /// what it has acknowledged. A file system that knows no locks is taken at its word.
    pub fn claim(&self) -> io::Result<Vec<File>> {
        let paths = if self.is_split() { vec![&self.snap_dir, &self.log_dir] } else { vec![&self.snap_dir] };
        let claim = |path: &Arc<Path>| {
            let handle =
                File::open(path).map_err(|error| named(error, "cannot open data directory", path))?;
            match handle.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let error = io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        "another server is running on it: stop that one, or give this one a dataDir of its own",
                    );
                    Err(named(error, "cannot take data directory", path))
                }
                Ok(()) | Err(TryLockError::Error(_)) => Ok(handle),
            }
        };
        paths.into_iter().map(claim).collect()
    }

    fn opened(&self, file: File) -> OpenFile {
        OpenFile { file, brake: self.brake.clone() }
    }

    fn dir(&self, dir: Dir) -> &Path {
        match dir {
            Dir::Log => &self.log_dir,
            Dir::Snap => &self.snap_dir,
        }
    }
}

/// Creates `dir/version-2`, durably. Canonical, so that two spellings of one directory count as one.
fn prepare(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(VERSION_DIR);
    std::fs::create_dir_all(&path).map_err(|error| named(error, "cannot create data directory", &path))?;
    let path = path.canonicalize().map_err(|error| named(error, "cannot open data directory", &path))?;
    for made in [path.as_path(), path.parent().unwrap_or(&path)] {
        File::open(made)
            .and_then(|handle| handle.sync_all())
            .map_err(|error| named(error, "cannot sync data directory", made))?;
    }
    Ok(path)
}

fn named(error: io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

impl Disk for FileDisk {
    type File = OpenFile;

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.dir(dir))? {
            let entry = entry?;
            // Names that are no UTF-8 are none of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, dir: Dir, name: &str) -> io::Result<OpenFile> {
        let path = self.dir(dir).join(name);
        // Read-only directories can still be dumped; truncation will then say what is wrong.
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if read_only(&error) => File::open(&path).map(|file| self.opened(file)),
            other => other.map(|file| self.opened(file)),
        }
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.dir(dir).join(name)).map(|file| self.opened(file))
    }

    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir(dir).join(from), self.dir(dir).join(to))
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir(dir).join(name))
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        File::open(self.dir(dir))?.sync_all()
    }

    fn is_split(&self) -> bool {
        self.log_dir != self.snap_dir
    }

    fn describe(&self, dir: Dir, name: &str) -> String {
        self.dir(dir).join(name).display().to_string()
    }
}

fn read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// What makes a disk slow, for experiments.
#[derive(Debug)]
struct Brake {
    file: PathBuf,
    /// What the file says was no number, and that was told.
    is_told: AtomicBool,
}

impl Brake {
    fn delay(&self) -> Duration {
        let Ok(text) = std::fs::read_to_string(&self.file) else { return Duration::ZERO };
        let ms = text.trim().parse::<f64>().ok().filter(|ms| (0.0..=DELAY_MAX_MS).contains(ms));
        if ms.is_none() && !self.is_told.swap(true, Relaxed) {
            tracing::warn!(
                file = %self.file.display(),
                "zoometry.syncDelayFile: expected a number of milliseconds from 0 to {DELAY_MAX_MS}, found {:?}: \
                 nothing is delayed",
                text.chars().take(40).collect::<String>()
            );
        }
        Duration::from_secs_f64(ms.unwrap_or(0.0) / 1000.0)
    }
}

/// One open file.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    brake: Option<Arc<Brake>>,
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(brake) = &self.brake {
            std::thread::sleep(brake.delay());
        }
        self.file.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        match allocate(&self.file, len) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                // No fallocate here: grow sparse, but never cut.
                if self.len()? < len { self.file.set_len(len) } else { Ok(()) }
            }
            other => other,
        }
    }

    fn forget(&mut self, from: u64, to: u64) {
        uncache(&self.file, from, to);
    }
}

#[cfg(target_os = "linux")]
fn uncache(file: &File, from: u64, to: u64) {
    use std::os::fd::AsRawFd;
    let offset = |at: u64| libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX);
    let (at, len) = (offset(from), offset(to.saturating_sub(from)));
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call touches no memory of ours.
    // It is a hint: a file system that does not take it keeps its copy.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), at, len, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
fn uncache(_file: &File, _from: u64, _to: u64) {}

#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; fallocate touches no memory of ours.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoometry_replica::storage::log::{LogOptions, LogReader, TxnLog};
    use zoometry_wire::Zxid;

    fn opened() -> (tempfile::TempDir, FileDisk) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let disk = FileDisk::open(home.path(), home.path()).expect("open");
        (home, disk)
    }

    #[test]
    fn a_disk_is_as_slow_as_the_file_says_at_that_moment() {
        let (home, disk) = opened();
        let says = home.path().join("delay");
        let disk = disk.slowed_by(says.clone());
        let mut file = disk.create(Dir::Log, "log.1").expect("create");
        let delay = |disk: &FileDisk| disk.brake.as_ref().expect("it was given one").delay();
        assert_eq!(delay(&disk), Duration::ZERO, "nothing says that it is slow");
        std::fs::write(&says, "100.5\n").expect("write");
        assert_eq!(delay(&disk), Duration::from_micros(100_500));
        let began = std::time::Instant::now();
        file.sync().expect("sync");
        assert!(began.elapsed() >= Duration::from_micros(100_500));
        for nonsense in ["a lot", "-1", "1e9", "NaN", ""] {
            std::fs::write(&says, nonsense).expect("write");
            assert_eq!(delay(&disk), Duration::ZERO, "{nonsense:?}");
        }
    }

    #[test]
    fn files_are_where_apache_looks_for_them() {
        let (home, disk) = opened();
        let mut file = disk.create(Dir::Snap, "snapshot.0").expect("create");
        file.write_at(3, b"abc").expect("write");
        file.sync().expect("sync");
        disk.sync_dir(Dir::Snap).expect("sync");
        assert_eq!(std::fs::read(home.path().join("version-2/snapshot.0")).expect("read"), b"\0\0\0abc");
        let described = disk.describe(Dir::Snap, "snapshot.0");
        assert_eq!(std::fs::read(described).expect("the described file").len(), 6);
        std::fs::create_dir(home.path().join("version-2/a directory")).expect("mkdir");
        assert_eq!(disk.list(Dir::Log).expect("list"), ["snapshot.0"]);
        disk.rename(Dir::Snap, "snapshot.0", "snapshot.1").expect("rename");
        assert_eq!(disk.open(Dir::Snap, "snapshot.0").expect_err("gone").kind(), io::ErrorKind::NotFound);
        disk.remove(Dir::Snap, "snapshot.1").expect("remove");
        assert!(disk.list(Dir::Log).expect("list").is_empty());
    }

    #[test]
    fn reserved_space_reads_as_zeros_and_is_never_cut() {
        let (_home, disk) = opened();
        let mut file = disk.create(Dir::Log, "log.1").expect("create");
        file.write_at(0, b"abc").expect("write");
        file.reserve(100_000).expect("reserve");
        assert_eq!(file.len().expect("len"), 100_000);
        file.reserve(50_000).expect("reserve");
        assert_eq!(file.len().expect("len"), 100_000);
        let mut buffer = [9; 10];
        assert_eq!(file.read_at(99_995, &mut buffer).expect("read"), 5);
        assert_eq!(buffer, [0, 0, 0, 0, 0, 9, 9, 9, 9, 9]);
        assert_eq!(file.read_at(100_000, &mut buffer).expect("read"), 0);
    }

    #[test]
    fn two_spellings_of_one_directory_are_one() {
        let home = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink(home.path(), home.path().join("link")).expect("link");
        let disk = FileDisk::open(home.path(), &home.path().join("link/.")).expect("open");
        assert!(!disk.is_split());
        let other = tempfile::tempdir().expect("a temporary directory");
        assert!(FileDisk::open(home.path(), other.path()).expect("open").is_split());
    }

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let (home, disk) = opened();
        let ours = disk.claim().expect("nobody else is there");
        let other = tempfile::tempdir().expect("a temporary directory");
        let theirs = FileDisk::open(other.path(), home.path()).expect("open");
        let error = theirs.claim().expect_err("its log is ours").to_string();
        assert!(error.contains("another server") && error.contains("version-2"), "{error}");
        drop(ours);
        assert_eq!(theirs.claim().expect("we have gone").len(), 2);
    }

    #[test]
    fn what_is_no_directory_is_named() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let file = home.path().join("file");
        std::fs::write(&file, b"").expect("write");
        let error = FileDisk::open(&file, &file).expect_err("a file").to_string();
        assert!(
            error.contains("cannot create data directory") && error.contains("file/version-2"),
            "{error}"
        );
        let error = FileDisk::open_existing(home.path(), home.path()).expect_err("nothing there").to_string();
        assert!(error.contains("cannot open data directory") && error.contains("version-2"), "{error}");
    }

    /// Preallocation is real: the blocks are there before the records are. What the system was told to forget can
    /// still be read.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_log_file_has_its_blocks() {
        use std::os::unix::fs::MetadataExt;
        let (home, disk) = opened();
        let options = LogOptions { prealloc_bytes: 4 << 20, ..LogOptions::default() };
        let mut log = TxnLog::new(disk.clone(), options);
        let path = home.path().join("version-2/log.1");
        for zxid in 1..=300 {
            log.append(Zxid(zxid), &[7; 5000]).expect("append");
            log.commit().expect("commit");
        }
        let metadata = std::fs::metadata(&path).expect("the file");
        assert_eq!(metadata.len(), (4 << 20) + 16);
        // Not every file system counts reserved blocks; those that reserve do.
        let counted = metadata.blocks() * 512;
        assert!(counted >= 300 * 5000, "{counted} bytes of blocks");
        log.roll().expect("roll");
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), 16 + 300 * 5013);
        LogReader::open(&disk, "log.1").expect("a header");
        let bytes = std::fs::read(&path).expect("read");
        let records = bytes[16..].chunks_exact(5013);
        assert!(records.len() == 300 && records.clone().all(|record| record[12..5012] == [7; 5000]));
    }
}
