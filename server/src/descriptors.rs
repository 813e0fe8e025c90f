//! File descriptors: how many this process may have, and how many of them its clients may take.
//!
//! Clients, peers, the log, snapshots and operators all take from one number. A member that finds none left for its
//! next log file ends, so clients are held below what the rest needs: one more is accepted and closed, as one above
//! `maxCnxns` is.

use std::io;

use crate::http;

/// Kept for files, listeners and the runtime.
const FILES: u64 = 64;
/// Operators' two listeners, metrics and admin, each with one connection more that is being refused.
const OPERATORS: u64 = 2 * (http::MAX_CONNECTIONS as u64 + 1);

/// Raises the soft limit to the hard one, as Java's virtual machine does. Returns the limit that holds then, or what
/// the system says.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = limits()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the call reads one struct, which is ours.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// How many descriptors this process may have now.
pub fn limit() -> Option<u64> {
    limits().ok().map(|limit| limit.rlim_cur)
}

/// How many clients may be connected of `limit` descriptors, when the links to other members may take up to `peers`:
/// what is kept back is at most half.
pub fn for_clients(limit: u64, peers: u64) -> usize {
    let kept = (FILES + OPERATORS + peers).min(limit / 2);
    usize::try_from(limit - kept).unwrap_or(usize::MAX).max(1)
}

fn limits() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one struct, which is ours.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_enough_for_the_rest() {
        for (limit, peers, clients) in [
            (1024, 0, 1024 - FILES - OPERATORS),
            (1024, 300, 1024 - FILES - OPERATORS - 300),
            (192, 0, 192 - 96),
            (100, 300, 50),
            (0, 0, 1),
        ] {
            assert_eq!(for_clients(limit, peers) as u64, clients, "{limit} {peers}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = limits().expect("limits").rlim_max;
        assert_eq!(raise_limit().expect("allowed"), hard);
        assert_eq!(limit(), Some(hard));
    }
}
