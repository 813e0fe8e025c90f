//! What happened in a simulated life: told line by line when somebody listens, and always as a fingerprint,
//! by which two lives of one seed can be compared.

use std::hash::{DefaultHasher, Hasher as _};

/// A life's story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    aloud: bool,
    fingerprint: DefaultHasher,
    lines: u64,
}

impl Story {
    /// A story that is printed as it happens.
    pub fn aloud() -> Self {
        Self { aloud: true, ..Self::default() }
    }

    /// One more line.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        if self.aloud {
            println!("{line}");
        }
        self.fingerprint.write(line.as_bytes());
        self.lines += 1;
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
