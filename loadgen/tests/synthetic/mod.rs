//! Runs that never happened, with the features of real ones: a queue in front of the cluster, group commit,
//! a stall, an election. For tests of everything right of the recorder, and to look at charts.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use zoometry::closeup::Close;
use zoometry::expect::Judged;
use zoometry::op::{Op, Outcome};
use zoometry::recorder::{Completion, INTERVAL_NS, Recorder, Recording};
use zoometry::results::*;
use zoometry::summary::Summary;
use zoometry::verdict::Verdict;
use zoometry_wire::ErrorCode;

/// One phase to make up.
#[derive(Clone)]
pub struct Phase {
    pub name: &'static str,
    pub warmup: bool,
    pub arrival: ArrivalKind,
    pub seconds: f64,
    pub rate: f64,
    pub write_share: f64,
    /// Median of a read, microseconds.
    pub read_us: f64,
    /// Seconds into the phase at which the cluster loses its leader, if it does.
    pub failover_at: Option<f64>,
    /// Share of reads that find no znode.
    pub no_node: f64,
}

impl Phase {
    pub fn open(name: &'static str, rate: f64, seconds: f64) -> Phase {
        Phase {
            name,
            warmup: false,
            arrival: ArrivalKind::Open,
            seconds,
            rate,
            write_share: 1.0 / 11.0,
            read_us: 75.0,
            failover_at: None,
            no_node: 0.0,
        }
    }
}

/// The whole made-up run.
pub struct Made {
    pub workload: &'static str,
    pub cluster: &'static str,
    pub members: usize,
    pub phases: Vec<Phase>,
    pub workers: usize,
    pub seed: u64,
    /// CPU of a server per operation.
    pub server_us_per_op: f64,
}

impl Default for Made {
    fn default() -> Made {
        Made {
            workload: "read-heavy",
            cluster: "zoometry:3",
            members: 3,
            phases: vec![
                Phase { warmup: true, ..Phase::open("warm-up", 2_000.0, 3.0) },
                Phase::open("low", 1_000.0, 10.0),
                Phase::open("middle", 4_000.0, 10.0),
                Phase { failover_at: Some(4.0), ..Phase::open("failover", 4_000.0, 10.0) },
            ],
            workers: 2,
            seed: 7,
            server_us_per_op: 8.0,
        }
    }
}

const SECOND: f64 = 1e9;
const DETECT_S: f64 = 0.18;

impl Made {
    pub fn records(&self) -> Vec<PhaseRecord> {
        let mut start_ns = 0;
        self.phases
            .iter()
            .map(|phase| {
                let end_ns = start_ns + (phase.seconds * SECOND) as u64;
                let record = PhaseRecord {
                    name: phase.name.to_string(),
                    warmup: phase.warmup,
                    arrival: phase.arrival,
                    arrival_text: match phase.arrival {
                        ArrivalKind::Open => format!("poisson {}/s", phase.rate),
                        ArrivalKind::Closed => "closed, 10 in flight per session".to_string(),
                    },
                    start_ns,
                    end_ns,
                    sessions: 30,
                    in_flight: 10,
                };
                start_ns = end_ns;
                record
            })
            .collect()
    }

    /// Every completion of one worker, in the order of the time done.
    pub fn completions(&self, worker: usize) -> Vec<Completion> {
        let mut rng = SmallRng::seed_from_u64(self.seed + worker as u64);
        let mut all = Vec::new();
        for (at, (phase, record)) in self.phases.iter().zip(self.records()).enumerate() {
            let mut due = record.start_ns as f64;
            let rate = phase.rate / self.workers as f64;
            loop {
                due += -(1.0 - rng.random::<f64>()).ln() / rate * SECOND;
                if due >= record.end_ns as f64 {
                    break;
                }
                all.push(self.one(&mut rng, at as u16, phase, record.start_ns as f64, due));
            }
        }
        all.sort_by_key(|c: &Completion| c.done_ns);
        all
    }

    fn one(&self, rng: &mut SmallRng, at: u16, phase: &Phase, start: f64, due: f64) -> Completion {
        let write = rng.random::<f64>() < phase.write_share;
        let lag = 1_500.0 + rng.random::<f64>() * 9_000.0;
        let mut sent = due + lag;
        // Log-normal by the sum of uniforms; heavier under load.
        let normal: f64 = (0..6).map(|_| rng.random::<f64>() - 0.5).sum::<f64>() * 1.4;
        let load = 1.0 + phase.rate / 9_000.0;
        let mut service = phase.read_us * 1e3 * load * (0.45 * normal).exp();
        if rng.random::<f64>() < 0.004 {
            service += rng.random::<f64>() * 1.2e6;
        }
        if write {
            // Waits for the sync under way and then for its own.
            service += 620_000.0 * (1.0 + rng.random::<f64>()) * (0.25 * normal).exp();
        }
        let mut outcome = Outcome::Ok;
        if let Some(fault) = phase.failover_at {
            let from = start + fault * SECOND;
            let to = from + DETECT_S * SECOND;
            if write && sent >= from && sent < to {
                if rng.random::<f64>() < 0.3 {
                    outcome = Outcome::Error(ErrorCode::ConnectionLoss);
                    service = (from - sent).max(0.0) + 90_000_000.0 * rng.random::<f64>() + 1e6;
                } else {
                    let wait = to - sent;
                    sent += wait * 0.6;
                    service += wait * 0.4;
                }
            }
        }
        if !write && rng.random::<f64>() < phase.no_node {
            outcome = Outcome::Error(ErrorCode::NoNode);
        }
        Completion {
            phase: at,
            op: if write { Op::Set } else { Op::Get },
            outcome,
            due_ns: due as u64,
            sent_ns: sent as u64,
            done_ns: (sent + service) as u64,
            bytes: 100,
        }
    }

    pub fn recording(&self) -> Recording {
        let parts = (0..self.workers).map(|worker| {
            let mut recorder = Recorder::new(INTERVAL_NS);
            self.completions(worker).iter().for_each(|c| recorder.record(c));
            recorder.finish()
        });
        Recording::merged(INTERVAL_NS, parts)
    }

    pub fn run(&self) -> RunData {
        let phases = self.records();
        let end_ns = phases.last().map_or(0, |phase| phase.end_ns);
        let mut events = Vec::new();
        for (phase, record) in self.phases.iter().zip(&phases) {
            if let Some(fault) = phase.failover_at {
                let at_ns = record.start_ns + (fault * SECOND) as u64;
                let event = |at_ns, kind: &str, target: &str, detail: &str| EventRow {
                    at_ns,
                    duration_ns: 0,
                    kind: kind.into(),
                    target: target.into(),
                    detail: detail.into(),
                };
                events.push(event(at_ns, "fault", "127.0.0.1:2181", "kill the leader"));
                events.push(event(at_ns + 170_000_000, "role", "127.0.0.1:2182", "leader"));
            }
        }
        let connections = (0..self.members).map(|m| (address(m), 10)).collect();
        let manifest = self.manifest(phases, connections, end_ns);
        let mut run =
            RunData::new(manifest, self.recording(), events, self.servers(end_ns), self.generator(end_ns));
        // Every completion around faults, from its first second on, spread over the members.
        if self.phases.iter().any(|phase| phase.failover_at.is_some()) {
            let all = (0..self.workers).flat_map(|worker| self.completions(worker));
            run.completions = all
                .enumerate()
                .map(|(n, c)| Close {
                    at_ns: c.done_ns,
                    response_ns: c.done_ns - c.due_ns,
                    member: (n % self.members) as u16,
                    op: c.op,
                    outcome: c.outcome,
                })
                .collect();
            run.completions.sort_by_key(|close| close.at_ns);
        }
        let summary = Summary::of(&run);
        run.manifest.verdict = Verdict::judge(&run, &summary);
        run
    }

    fn manifest(
        &self,
        phases: Vec<PhaseRecord>,
        connections: BTreeMap<String, u32>,
        end_ns: u64,
    ) -> Manifest {
        Manifest {
            format: FORMAT,
            workload: self.workload.into(),
            question: "How fast are reads when one operation in eleven is a write, and what does a write \
                       cost next to them?\nAsked at two rates, and once more while the leader dies."
                .into(),
            workload_text:
                "seed = 7\n\n[data]\nznodes = 10_000\nvalue_bytes = 100\n\n[[phase]]\nname = \"low\"\n".into(),
            workload_hash: "5f1d0c8e2a7b4b90".into(),
            overrides: vec!["phase.low.duration=10s".into()],
            seed: self.seed,
            cluster: self.cluster.into(),
            cluster_label: self.cluster.replace(':', "-"),
            command: format!("zoometry run workloads/{}.toml --cluster {}", self.workload, self.cluster),
            version: "0.1.0".into(),
            revision: None,
            started_unix_ms: 1_795_355_110_000,
            ended_unix_ms: 1_795_355_110_000 + end_ns / 1_000_000,
            workers: self.workers as u32,
            session_timeout_ms: 10_000,
            request_timeout_ms: 5_000,
            backlog_limit: 100_000,
            placement: "spread".into(),
            connections,
            environment: Environment {
                host: "bench-1".into(),
                kernel: "Linux 6.1.0".into(),
                cpu_model: "AMD EPYC 7B13".into(),
                cores: 8,
                governor: "performance".into(),
                memory_bytes: 32 << 30,
                clock_source: "tsc".into(),
                clock_step_ns: 1,
                clock_read_ns: 25,
                data_filesystem: Some("ext4".into()),
                data_on_tmpfs: Some(false),
                colocated: true,
                ..Environment::default()
            },
            members: (0..self.members)
                .map(|m| MemberFingerprint {
                    // As in directories from before members had names.
                    name: String::new(),
                    address: address(m),
                    version: if self.cluster.starts_with("apache") { "3.8.0" } else { "zoometry 0.1.0" }
                        .into(),
                    role: if m == 0 { "leader" } else { "follower" }.into(),
                    settings: BTreeMap::from([
                        ("forceSync".into(), "yes".into()),
                        ("tickTime".into(), "2000".into()),
                    ]),
                })
                .collect(),
            phases,
            expectations: vec![
                Judged {
                    text: "response.get.p99 < 5ms".into(),
                    met: true,
                    detail: "measured 1.02 ms (phase low, 9123 samples)".into(),
                },
                Judged {
                    text: "failover.write_gap < 200ms".into(),
                    met: false,
                    detail: "measured 241 ms (all phases, 1 samples)".into(),
                },
            ],
            ..Manifest::default()
        }
    }

    fn rate_at(&self, at_ns: u64) -> f64 {
        let at = self.records().iter().position(|phase| at_ns > phase.start_ns && at_ns <= phase.end_ns);
        at.map_or(0.0, |at| self.phases[at].rate)
    }

    fn servers(&self, end_ns: u64) -> Vec<ServerSample> {
        let mut rng = SmallRng::seed_from_u64(self.seed + 1_000);
        let mut cpu = vec![0.0; self.members];
        let mut samples = Vec::new();
        for second in 0..=end_ns / 1_000_000_000 {
            for (member, cpu_ns) in cpu.iter_mut().enumerate() {
                let share = if member == 0 { 1.6 } else { 1.0 } / self.members as f64;
                let wobble = 0.9 + 0.2 * rng.random::<f64>();
                *cpu_ns +=
                    self.rate_at(second * 1_000_000_000) * self.server_us_per_op * 1e3 * share * wobble;
                samples.push(ServerSample {
                    at_ns: second * 1_000_000_000,
                    member: address(member),
                    role: if member == 0 { "leader" } else { "follower" }.into(),
                    cpu_ns: Some(*cpu_ns as u64),
                    rss_bytes: Some((40 << 20) + second * (100_000 + member as u64 * 40_000)),
                    metrics: BTreeMap::from([
                        ("zk_znode_count".to_string(), 10_000.0),
                        ("zk_avg_latency".to_string(), 0.31),
                    ]),
                });
            }
        }
        samples
    }

    fn generator(&self, end_ns: u64) -> GeneratorStats {
        let mut samples = Vec::new();
        for second in 1..=end_ns / 1_000_000_000 {
            for worker in 0..self.workers {
                let rate = self.rate_at(second * 1_000_000_000) / self.workers as f64;
                samples.push(GeneratorSample {
                    at_ns: second * 1_000_000_000,
                    wall_ns: 1_000_000_000,
                    worker: worker as u16,
                    cpu_ns: (rate * 2_400.0) as u64,
                    run_queue_ns: 2_000_000,
                    jitter_max_ns: 180_000,
                    in_flight: 3,
                    at_cap: 0,
                });
            }
        }
        GeneratorStats { samples }
    }
}

/// The client address of a member.
pub fn address(member: usize) -> String {
    format!("127.0.0.1:{}", 2181 + member)
}
