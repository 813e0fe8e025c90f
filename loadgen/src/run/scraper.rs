//! What members are asked while the load runs.

use super::collector::Said;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zoometry_spans::Clock;

use crate::cluster::{Cluster, Process};
use crate::scrape;

/// How often members are asked for their figures.
const SCRAPE: Duration = Duration::from_secs(1);
/// In a longer run less often, so that there are not more samples.
const SAMPLES_MAX: u64 = 7_200;

/// Asks the members once per second, and reads their processes at the phases' boundaries.
pub(super) struct Scraper {
    clock: Clock,
    members: Vec<(String, Option<Arc<Process>>)>,
    said: Arc<Mutex<Said>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Scraper {
    /// Leaves what it hears at `said`. `boundaries` are the begin of the first phase and the end of each.
    pub(super) fn start(
        clock: Clock,
        cluster: &Cluster,
        boundaries: Vec<u64>,
        said: Arc<Mutex<Said>>,
    ) -> Scraper {
        let seconds = boundaries.last().zip(boundaries.first()).map_or(0, |(end, begin)| end - begin);
        let pause = SCRAPE * (seconds / 1_000_000_000).div_ceil(SAMPLES_MAX).max(1) as u32;
        let mut tasks = Vec::new();
        for member in &cluster.members {
            let (name, address) = (member.name.clone(), member.address);
            let process = member.local.as_ref().map(|local| local.process.clone());
            let (kept, of, sampled) = (said.clone(), name.clone(), process.clone());
            tasks.push(tokio::spawn(async move {
                let mut every = tokio::time::interval(pause);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    let sample = scrape::sample(&clock, &of, address, sampled.as_deref()).await;
                    kept.lock().expect("no task panics holding it").servers.push(sample);
                }
            }));
            if process.is_some() {
                let (kept, boundaries) = (said.clone(), boundaries.clone());
                tasks.push(tokio::spawn(async move {
                    for at_ns in boundaries {
                        tokio::time::sleep(Duration::from_nanos(at_ns.saturating_sub(clock.now_ns()))).await;
                        let sample = scrape::process_sample(&clock, &name, process.as_deref());
                        kept.lock().expect("no task panics holding it").servers.push(sample);
                    }
                }));
            }
        }
        let members = cluster.members.iter();
        let members =
            members.map(|m| (m.name.clone(), m.local.as_ref().map(|local| local.process.clone()))).collect();
        Scraper { clock, members, said, tasks }
    }

    pub(super) async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        // A run that was cut short ends between two samples.
        let last = self
            .members
            .iter()
            .map(|(name, process)| scrape::process_sample(&self.clock, name, process.as_deref()));
        let last: Vec<_> = last.filter(|sample| sample.cpu_ns.is_some()).collect();
        self.said.lock().expect("no task panics holding it").servers.extend(last);
    }
}
