//! The signals that end a program in order: SIGINT, SIGTERM, SIGHUP and SIGQUIT.
//!
//! The first one asks for an orderly end, the second for one at once, the third for one that leaves everything as it is. Which of
//! them came first decides the exit code. SIGHUP is left alone where it was ignored when the program started (`nohup`).

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A signal that ends the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal has gone.
    HangUp,
    /// SIGQUIT, Ctrl-\.
    Quit,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Interrupt, Signal::Terminate, Signal::HangUp, Signal::Quit];

    /// Its name, as `kill -l` has it with SIG before it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
            Signal::HangUp => "SIGHUP",
            Signal::Quit => "SIGQUIT",
        }
    }

    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::HangUp => libc::SIGHUP,
            Signal::Quit => libc::SIGQUIT,
        }
    }
}

/// How many came, and the first of them.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    count: u32,
    first: Option<Signal>,
}

/// Listens for as long as a clone of it lives.
#[derive(Debug, Clone)]
pub struct Signals(watch::Receiver<Seen>);

impl Signals {
    /// From now on none of these signals ends the program by itself. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen() -> std::io::Result<Signals> {
        let (sender, receiver) = watch::channel(Seen::default());
        for of in Signal::ALL {
            if of == Signal::HangUp && is_ignored(of) {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(of.number()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    sender.send_modify(|seen| {
                        seen.count += 1;
                        seen.first.get_or_insert(of);
                    });
                }
            });
        }
        Ok(Signals(receiver))
    }

    /// Returns when at least so many came, with the first of them.
    pub async fn came(&mut self, times: u32) -> Signal {
        loop {
            if let Ok(seen) = self.0.wait_for(|seen| seen.count >= times).await
                && let Some(first) = seen.first
            {
                return first;
            }
            // Nobody can send any more.
            std::future::pending::<()>().await;
        }
    }

    /// The first that came.
    pub fn first(&self) -> Option<Signal> {
        self.0.borrow().first
    }

    /// How many came.
    pub fn count(&self) -> u32 {
        self.0.borrow().count
    }
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is plain data, for which all zeros are valid.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed; `now` is writable and outlives the call.
    let asked = unsafe { libc::sigaction(signal.number(), std::ptr::null(), &mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Signals reach every test of this process: those that send them and those that listen for them take turns.
    pub(crate) static TURN: Mutex<()> = Mutex::new(());

    #[tokio::test(flavor = "current_thread")]
    #[expect(clippy::await_holding_lock, reason = "nothing else runs on this thread")]
    async fn the_first_signal_decides_and_all_are_counted() {
        let _turn = TURN.lock().unwrap();
        // Tests that are started with `nohup` would find it ignored, and wait for it without end. (A handler that
        // another test has brought stays: the runtime puts it there once.)
        if is_ignored(Signal::HangUp) {
            // SAFETY: no handler is replaced, and the default action needs none.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        }
        let mut signals = Signals::listen().unwrap();
        assert_eq!((signals.first(), signals.count()), (None, 0));
        for (n, of) in [Signal::HangUp, Signal::Terminate, Signal::Quit].into_iter().enumerate() {
            // SAFETY: raises a signal that this process listens for.
            assert_eq!(unsafe { libc::raise(of.number()) }, 0);
            assert_eq!(signals.came(n as u32 + 1).await, Signal::HangUp);
        }
        assert_eq!(signals.count(), 3);
    }
}
