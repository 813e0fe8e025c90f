//! What members are asked while the load runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use zoometry_spans::Clock;

use crate::cluster::{Cluster, Process};
use crate::results::ServerSample;
use crate::scrape;

/// How often members are asked for their figures.
const SCRAPE: Duration = Duration::from_secs(1);

/// Asks the members once per second, and reads their processes at the phases' boundaries.
pub(super) struct Scraper {
    clock: Clock,
    members: Vec<(String, Option<Arc<Process>>)>,
    samples: Arc<Mutex<Vec<ServerSample>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Scraper {
    pub(super) fn start(clock: Clock, cluster: &Cluster, boundaries: Vec<u64>) -> Scraper {
        let samples: Arc<Mutex<Vec<ServerSample>>> = Arc::default();
        let mut tasks = Vec::new();
        for member in &cluster.members {
            let (name, address) = (member.name.clone(), member.address);
            let process = member.local.as_ref().map(|local| local.process.clone());
            let (kept, of, sampled) = (samples.clone(), name.clone(), process.clone());
            tasks.push(tokio::spawn(async move {
                let mut every = tokio::time::interval(SCRAPE);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    let sample = scrape::sample(&clock, &of, address, sampled.as_deref()).await;
                    kept.lock().expect("no task panics holding it").push(sample);
                }
            }));
            if process.is_some() {
                let (kept, boundaries) = (samples.clone(), boundaries.clone());
                tasks.push(tokio::spawn(async move {
                    for at_ns in boundaries {
                        tokio::time::sleep(Duration::from_nanos(at_ns.saturating_sub(clock.now_ns()))).await;
                        let sample = scrape::process_sample(&clock, &name, process.as_deref());
                        kept.lock().expect("no task panics holding it").push(sample);
                    }
                }));
            }
        }
        let members = cluster.members.iter();
        let members =
            members.map(|m| (m.name.clone(), m.local.as_ref().map(|local| local.process.clone()))).collect();
        Scraper { clock, members, samples, tasks }
    }

    pub(super) async fn stop(self) -> Vec<ServerSample> {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        // A run that was cut short ends between two samples.
        let last = self
            .members
            .iter()
            .map(|(name, process)| scrape::process_sample(&self.clock, name, process.as_deref()));
        let mut samples = std::mem::take(&mut *self.samples.lock().expect("no task panics holding it"));
        samples.extend(last.filter(|sample| sample.cpu_ns.is_some()));
        samples.sort_by(|a, b| (a.at_ns, &a.member).cmp(&(b.at_ns, &b.member)));
        samples
    }
}
