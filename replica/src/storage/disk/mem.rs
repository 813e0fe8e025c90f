//! A disk in memory, with power failures (being filled in).
