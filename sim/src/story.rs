//! What happened in a simulated life: told line by line when somebody listens, kept as a fingerprint by which
//! two lives of one seed can be compared, or, where only the end matters, not put into words at all.

use std::hash::{DefaultHasher, Hasher as _};

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Listener {
    /// Somebody who compares.
    #[default]
    Fingerprint,
    /// A person.
    Aloud,
    /// Nobody.
    Nobody,
}

/// A life's story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    listener: Listener,
    fingerprint: DefaultHasher,
    lines: u64,
}

impl Story {
    /// A story that is printed as it happens.
    pub fn aloud() -> Self {
        Self { listener: Listener::Aloud, ..Self::default() }
    }

    /// A story that nobody hears: faster.
    pub fn silent() -> Self {
        Self { listener: Listener::Nobody, ..Self::default() }
    }

    /// One more line.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        self.lines += 1;
        if self.listener == Listener::Nobody {
            return;
        }
        let line = line();
        if self.listener == Listener::Aloud {
            println!("{line}");
        }
        self.fingerprint.write(line.as_bytes());
        self.fingerprint.write_u8(b'\n');
    }

    /// Equal for equal stories.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}
