//! [`Disk`] over real files.
//!
//! Two directories, `dataDir/version-2` and `dataLogDir/version-2`, which may be one. Reservation is
//! `fallocate` on Linux; where a file system has none (or on another system) the file grows sparse instead,
//! which costs time in fdatasync and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zoometry_replica::storage::disk::{Dir, Disk, DiskFile};

/// The sub-directory that holds everything; its name is the version of the formats.
pub const VERSION_DIR: &str = "version-2";

/// A member's files.
#[derive(Debug, Clone)]
pub struct FileDisk {
    snap_dir: Arc<Path>,
    log_dir: Arc<Path>,
}

impl FileDisk {
    /// Opens `data_dir` and `data_log_dir` (the same, if zoo.cfg has no `dataLogDir`), creating their
    /// `version-2` where missing. The error names the directory.
    pub fn open(data_dir: &Path, data_log_dir: &Path) -> io::Result<Self> {
        let snap_dir = prepare(data_dir)?;
        let log_dir = prepare(data_log_dir)?;
        Ok(Self { snap_dir: snap_dir.into(), log_dir: log_dir.into() })
    }

    /// As [`open`](Self::open), for reading only: creates nothing, refuses what is not there.
    pub fn open_existing(data_dir: &Path, data_log_dir: &Path) -> io::Result<Self> {
        let existing = |dir: &Path| {
            let path = dir.join(VERSION_DIR);
            path.canonicalize().map_err(|error| named(error, "cannot open data directory", &path))
        };
        Ok(Self { snap_dir: existing(data_dir)?.into(), log_dir: existing(data_log_dir)?.into() })
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
            Err(error) if read_only(&error) => File::open(&path).map(OpenFile),
            other => other.map(OpenFile),
        }
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.dir(dir).join(name)).map(OpenFile)
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

/// One open file.
#[derive(Debug)]
pub struct OpenFile(File);

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        match allocate(&self.0, len) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                // No fallocate here: grow sparse, but never cut.
                if self.len()? < len { self.0.set_len(len) } else { Ok(()) }
            }
            other => other,
        }
    }
}

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
