//! Connections that have not said who they are, on one of the two ports.
//!
//! At most [`HELLOS_WAITING_MAX`] of them wait, each for `hello_timeout_ms`. With one more, the oldest of the address that
//! has most of them is closed: a host that opens connections and says nothing pushes out its own. Whatever is wrong with
//! such connections is logged once a minute at most: thousands may come.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::bail;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock;
use crate::seldom::Seldom;

/// Connections of one port that have not yet said who they are; one more, and the oldest of the address that has most
/// of them is closed.
pub(super) const HELLOS_WAITING_MAX: usize = 64;

/// Those of one port.
#[derive(Default)]
pub(super) struct Hellos {
    waiting: Mutex<Waiting>,
    complaints: Seldom,
}

#[derive(Default)]
struct Waiting {
    /// Oldest first.
    connections: VecDeque<Connection>,
    last: u64,
}

struct Connection {
    number: u64,
    from: IpAddr,
    /// Dropped when it has to go.
    _place: oneshot::Sender<()>,
}

impl Hellos {
    /// Waits for a hello, for so long and as long as there is room.
    pub(super) async fn hear<T>(
        &self,
        from: IpAddr,
        patience: Duration,
        hello: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let (number, pushed_out) = self.enter(from);
        let heard = tokio::select! {
            heard = timeout(patience, hello) => {
                heard.unwrap_or_else(|_| Err(anyhow::anyhow!("no hello within {} ms", patience.as_millis())))
            }
            _ = pushed_out => Err(anyhow::anyhow!("{HELLOS_WAITING_MAX} others wait to say who they are")),
        };
        self.waiting.lock().connections.retain(|connection| connection.number != number);
        heard
    }

    fn enter(&self, from: IpAddr) -> (u64, oneshot::Receiver<()>) {
        let (place, pushed_out) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.connections.len() >= HELLOS_WAITING_MAX {
            let count = |from| waiting.connections.iter().filter(|other| other.from == from).count();
            let counts = waiting.connections.iter().map(|connection| count(connection.from));
            // The last maximum of the reversed order is the oldest.
            let goes = counts.enumerate().rev().max_by_key(|(_, count)| *count).map(|(index, _)| index);
            if let Some(index) = goes {
                waiting.connections.remove(index);
            }
        }
        waiting.last += 1;
        let number = waiting.last;
        waiting.connections.push_back(Connection { number, from, _place: place });
        (number, pushed_out)
    }

    /// Logs why a connection of this port is closed, or counts it.
    pub(super) fn complain(&self, port: &str, peer: SocketAddr, why: &anyhow::Error) {
        if let Some(left_out) = self.complaints.say(clock::now_ns()) {
            tracing::warn!(%peer, left_out, "closing {port} connection: {why:#}");
        }
    }
}

/// An error unless there are fewer than so many.
pub(super) fn room_for_one_more(count: usize, most: usize, what: &str) -> anyhow::Result<()> {
    if count >= most {
        bail!("there are {count} {what}, the most that are taken");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn whoever_fills_the_place_makes_room_for_others() {
        let hellos = Hellos::default();
        let (_, mut member) = hellos.enter(host(1));
        let mut silent: Vec<_> = (1..HELLOS_WAITING_MAX).map(|_| hellos.enter(host(9)).1).collect();
        assert!(silent.iter_mut().all(|place| place.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
        for (newcomer, oldest) in (2..12).zip(&mut silent) {
            let (_, mut other) = hellos.enter(host(2 + newcomer % 2));
            assert_eq!(
                oldest.try_recv(),
                Err(oneshot::error::TryRecvError::Closed),
                "the oldest of the most"
            );
            assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        assert_eq!(member.try_recv(), Err(oneshot::error::TryRecvError::Empty), "the oldest of all stays");
        assert_eq!(hellos.waiting.lock().connections.len(), HELLOS_WAITING_MAX);
    }

    #[tokio::test]
    async fn whoever_has_spoken_waits_no_longer() {
        let hellos = Hellos::default();
        let patience = Duration::from_secs(20);
        assert_eq!(hellos.hear(host(1), patience, async { Ok(7) }).await.expect("heard"), 7);
        let silent =
            hellos.hear(host(1), Duration::from_millis(1), std::future::pending::<anyhow::Result<()>>());
        assert!(silent.await.expect_err("silent").to_string().contains("within 1 ms"));
        assert!(hellos.waiting.lock().connections.is_empty());
    }
}
