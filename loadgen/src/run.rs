//! One run from the workload file to the results directory and the exit code.
//!
//! Steps, in order: read the workload; get the cluster; make the run's znodes; open all sessions and arm watches; the phases; wait for what
//! is outstanding; look for what was acknowledged; take the znodes away; stop the cluster; write, judge, show. The first signal
//! ([`Signals`]: Ctrl-C, SIGTERM, SIGHUP) ends the phases early and goes on with the rest (the results say that the run was cut short);
//! the second ends the run at once.

mod collector;
mod leftovers;
mod manifest;
mod outcome;
mod repeat;
mod scraper;

pub use leftovers::clean;
pub use manifest::command_line;
pub(crate) use manifest::quoted;
pub use repeat::{Repeats, Setup, repeat, setups};

use crate::cluster::{Clients, Cluster, Disks, Keep, Links, Making, Tracing, Wanted};
use crate::credentials::Credentials;
use crate::driver::{
    self, Client, Control, Driver, Handover, Made, Places, Refused, Report, Settings, Verified, workers_for,
};
use crate::faults::journal::Journal;
use crate::faults::{self, Faults, heal};
use crate::figures;
use crate::foresee::{self, Outlook};
use crate::keys::KeySpace;
use crate::plan::Plan;
use crate::progress::{Counting, Load, Position, Show, Waiting};
use crate::recorder::interval_of;
use crate::results::{self, EventRow, Manifest, MemberFingerprint};
use crate::scrape;
use crate::signals::{Signal, Signals};
use crate::spec::{FaultKind, Placement, Spec};
use crate::summary::{self, Summary};
use crate::traces::{SLOWEST_PER_SECOND, TraceSettings, Traces, write_traces_json};
use anyhow::{Context, Result, anyhow, bail};
use collector::{Collector, Said, Sources};
use leftovers::Mark;
use scraper::Scraper;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tracing::{Instrument as _, info_span};
use zoometry_spans::{Clock, Exporter, Identity, Resource, SampleRate};
use zoometry_wire::Zxid;

/// A cluster must let us open a first session within this time.
const REACH_LIMIT: Duration = Duration::from_secs(15);
/// All sessions must be attached, and watches armed, within this time.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// From the word "go" to the first phase, so that every worker hears it in time.
const LEAD_NS: u64 = 100_000_000;
/// How often the progress line is renewed.
const REFRESH: Duration = Duration::from_millis(100);
/// Our own spans until they are in traces.json, in the results directory.
const SPAN_FILE: &str = "spans.jsonl";
/// Descriptors that are not sessions: files, timers, members' words.
const SPARE_DESCRIPTORS: u64 = 100;
/// Session timeout of the session that prepares and cleans up.
const OWN_TIMEOUT_MS: i32 = 30_000;
/// A request of our own servers that takes longer is traced, whatever the sample says.
const SLOW_TRACE_MS: u32 = 100;
/// So many of the slowest of every second are traced by our own servers, so that most of those that the load generator
/// finds slow have both sides.
const SLOWEST_ON_SERVER: u32 = 32;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The workload file.
    pub file: PathBuf,
    /// Whom to load.
    pub cluster: Wanted,
    /// `--set` overrides.
    pub overrides: Vec<String>,
    /// Where results directories are made.
    pub out: PathBuf,
    /// Where local members keep their data; the results directory if `None`.
    pub data_dir: Option<PathBuf>,
    /// Lines for the zoo.cfg of members started for the run, key and value.
    pub zoo_cfg: Vec<(String, String)>,
    /// Draw charts and write the report.
    pub charts: bool,
    /// Show nothing but the summary.
    pub quiet: bool,
    /// What is printed when the run is over.
    pub print: Print,
    /// Worker threads; chosen by the machine if `None`.
    pub workers: Option<u32>,
    /// Share of requests traced.
    pub trace_sample: f64,
    /// Who the sessions are.
    pub credentials: Credentials,
    /// OTLP, if it is on.
    pub exporter: Option<Exporter>,
    /// The command that repeats this run.
    pub command: String,
}

/// How much is printed of a run's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    /// The summary, the expectations, the verdict, where the results are.
    Summary,
    /// One line.
    Line,
}

/// How a run ended, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Believable, and everything expected was met.
    Met = 0,
    /// An expectation was not met.
    NotMet = 1,
    /// Bad input or usage.
    Usage = 2,
    /// The run does not describe the cluster.
    Invalid = 3,
    /// The cluster could not be reached, or broke a promise.
    Cluster = 4,
    /// Ended by SIGHUP.
    HungUp = 129,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGQUIT.
    Quit = 131,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// Why there are no results.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what to do.
    pub error: anyhow::Error,
}

/// Where the results are and how the run ended.
#[derive(Debug)]
pub struct Finished {
    /// The results directory.
    pub directory: PathBuf,
    /// The exit code.
    pub exit: Exit,
    /// Somebody stopped it before its end.
    pub cut_short: bool,
}

impl From<Signal> for Exit {
    /// As a shell tells that a signal has ended a program: 128 and the signal's number.
    fn from(signal: Signal) -> Exit {
        match signal {
            Signal::HangUp => Exit::HungUp,
            Signal::Interrupt => Exit::Interrupted,
            Signal::Quit => Exit::Quit,
            Signal::Terminate => Exit::Terminated,
        }
    }
}

trait Blame<T> {
    fn blame(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn blame(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}

/// Runs a workload. Must be called on a thread that lives until the end (local members die with it), inside no runtime.
pub fn run(options: &Options) -> Result<Finished, Failure> {
    let spec = spec(options).blame(Exit::Usage)?;
    if !options.quiet {
        warn_of_expectations(&spec);
    }
    if let Some(left) = heal::left_below(&options.out) {
        eprintln!("zoometry: {left}");
    }
    let runtime = Builder::new_current_thread().enable_all().build().blame(Exit::Usage)?;
    let span = info_span!("run", workload = spec.name, cluster = %options.cluster);
    let kept: OnceLock<(Arc<Journal>, Signals)> = OnceLock::new();
    let whole = async {
        let mut signals = Signals::listen().blame(Exit::Usage)?;
        let run = Run::new(options, spec, signals.clone())?;
        let left = format!(
            "the run was ended at once; what it wrote until then is in {} (zoometry report shows it)",
            run.directory.display()
        );
        let _ = kept.set((run.journal.clone(), signals.clone()));
        tokio::select! {
            outcome = run.whole() => outcome.map(|finished| ended_by(&signals, finished)),
            // Local members die with what is dropped here.
            signal = signals.came(2) => Err(stopped(signal, &left)),
        }
    };
    to_the_end(&runtime, whole.instrument(span), &kept)
}

/// Every end of a run passes here, also that by a panic: nothing is left broken without a word.
fn to_the_end(
    runtime: &Runtime,
    whole: impl Future<Output = Result<Finished, Failure>>,
    kept: &OnceLock<(Arc<Journal>, Signals)>,
) -> Result<Finished, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(whole)));
    let settled = kept
        .get()
        .is_none_or(|(journal, signals)| runtime.block_on(heal::settle(journal, &mut signals.clone())));
    match outcome.unwrap_or_else(|panic| resume_unwind(panic)) {
        Ok(finished) if !settled => Ok(Finished { exit: Exit::Cluster, ..finished }),
        outcome => outcome,
    }
}

/// A run that a signal has cut short says so by its exit code, unless a promise was broken.
fn ended_by(signals: &Signals, finished: Finished) -> Finished {
    match signals.first() {
        Some(signal) if finished.cut_short && finished.exit != Exit::Cluster => {
            Finished { exit: signal.into(), ..finished }
        }
        _ => finished,
    }
}

/// The workload, checked against the cluster that is wanted and against this machine's limits.
fn spec(options: &Options) -> Result<Spec> {
    let spec = Spec::load(&options.file, &options.overrides)?;
    faults::check(&spec, &options.cluster)?;
    check_placement(&spec, &options.cluster)?;
    check_members_are_started(options)?;
    allow_descriptors(u64::from(spec.sessions.count) + spec.watcher_sessions())?;
    Ok(spec)
}

/// What is known before the run about expectations that it cannot judge.
fn warn_of_expectations(spec: &Spec) {
    for expectation in &spec.expect {
        let why = match foresee::outlook(spec, expectation) {
            Outlook::Open => continue,
            Outlook::Doubtful(why) => format!("may lack samples: {why}"),
            Outlook::Settled(why) => format!("cannot be judged: {why}"),
        };
        eprintln!("warning: expectation `{}` {why}", expectation.text);
    }
}

/// Says what a run of the workload will be, without a cluster.
///
/// # Errors
/// Everything that is wrong with the workload; an expectation that cannot be judged.
pub fn check(file: &Path, overrides: &[String]) -> Result<()> {
    foretell(&Spec::load(file, overrides)?)
}

/// [`check`], and what the options and this machine allow.
///
/// # Errors
/// As [`check`]; what the cluster that is wanted, or this machine, cannot do.
pub fn dry_run(options: &Options) -> Result<()> {
    foretell(&spec(options)?)
}

fn foretell(spec: &Spec) -> Result<()> {
    let (text, judged) = foresee::text(spec);
    say(&text);
    if !judged {
        bail!("an expectation cannot be judged; change it, or the load");
    }
    Ok(())
}

/// Whether there is the member that sessions are to be attached to.
fn check_placement(spec: &Spec, wanted: &Wanted) -> Result<()> {
    match (spec.sessions.placement, wanted.members()) {
        (Placement::Server(n), members) if n as usize > members => {
            bail!("sessions.placement: {wanted} has {members} members, and no server.{n}")
        }
        _ => Ok(()),
    }
}

/// Whether there are members for what only concerns those that the run starts.
fn check_members_are_started(options: &Options) -> Result<()> {
    let zoo_cfg = options.zoo_cfg.first().map(|(key, value)| format!("--zoo-cfg {key}={value}"));
    let data_dir = options.data_dir.as_ref().map(|directory| format!("--data-dir {}", directory.display()));
    match zoo_cfg.or(data_dir) {
        Some(option) if !options.cluster.is_started_here() => bail!(
            "{option} is for members that are started for the run; {} has its own configuration and data: change \
             them there, and leave the option out",
            options.cluster
        ),
        _ => Ok(()),
    }
}

fn stopped(signal: Signal, what: &str) -> Failure {
    Failure { exit: signal.into(), error: anyhow!("stopped by {}: {what}", signal.name()) }
}

fn interrupted(signal: Signal) -> Failure {
    stopped(signal, "the load had not begun; there are no results")
}

/// Raises the limit of open files as far as it goes; every session takes one.
fn allow_descriptors(sessions: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the first call and read by the second.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    let needed = sessions + SPARE_DESCRIPTORS;
    if raised && limit.rlim_max < needed {
        bail!(
            "{sessions} sessions need {needed} open files, and this process may have {}: raise the limit \
             (ulimit -Hn), or use fewer sessions",
            limit.rlim_max
        );
    }
    Ok(())
}

struct Run<'a> {
    options: &'a Options,
    spec: Arc<Spec>,
    plan: Arc<Plan>,
    places: Places,
    keys: Arc<KeySpace>,
    clock: Clock,
    run_start: Instant,
    started_unix_ms: u64,
    directory: PathBuf,
    show: Show,
    signals: Signals,
    journal: Arc<Journal>,
}

/// What the load left behind.
struct Measured {
    report: Report,
    manifest: Manifest,
    /// What ended it before its end.
    cut_short_by: Option<String>,
    /// Why it is no run of this workload.
    failure: Option<anyhow::Error>,
    span_file: PathBuf,
}

/// How the load ended.
#[derive(Default)]
struct Ending {
    cut_short_by: Option<String>,
    failure: Option<anyhow::Error>,
}

impl Ending {
    /// The load ends before its time: nothing more is issued, replies are waited for.
    fn cut_short(&mut self, by: String, control: &Control) {
        self.cut_short_by.get_or_insert(by);
        control.stop();
    }

    /// A load with another fault than was asked for is not the one that was asked for.
    fn failed(&mut self, error: anyhow::Error, control: &Control) {
        self.cut_short(format!("{error:#}"), control);
        self.failure.get_or_insert(error);
    }
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, spec: Spec, signals: Signals) -> Result<Run<'a>, Failure> {
        let run_start = Instant::now();
        let started_unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let label = options.cluster.label();
        let name = results::directory_name(started_unix_ms, &spec.name, &label);
        let directory = results::make_directory(&options.out, &name).blame(Exit::Usage)?;
        // Two runs at one time, even of one machine, must not share a name.
        let run_id = format!("run-{:x}-{:x}", started_unix_ms, std::process::id());
        let places = Places::new(&format!("{}{}", options.cluster.chroot(), spec.data.root), &run_id);
        let keys = Arc::new(places.keys(&spec));
        let cluster_file = match &options.cluster {
            Wanted::File(file) => Some(file.path.clone()),
            _ => None,
        };
        let journal = Arc::new(Journal::new(&directory, options.cluster.to_string(), cluster_file));
        Ok(Run {
            options,
            plan: Arc::new(Plan::new(&spec)),
            spec: Arc::new(spec),
            places,
            keys,
            clock: Clock::starting_at(run_start),
            run_start,
            started_unix_ms,
            directory,
            show: Show::on_stderr(options.quiet),
            signals,
            journal,
        })
    }

    async fn whole(mut self) -> Result<Finished, Failure> {
        let mut signals = self.signals.clone();
        let mut made = Made::default();
        let before = tokio::select! {
            before = self.before(&mut made).instrument(info_span!("prepare")) => before,
            signal = signals.came(1) => Err(interrupted(signal)),
        };
        let (mut cluster, prepared, mark) = match before {
            Ok(before) => before,
            Err(failure) => return Err(self.abandon(failure, &made).await),
        };
        let members = cluster.fingerprints().await;
        let loaded = self.load(&mut cluster, members, prepared).instrument(info_span!("load"));
        let mut measured = match loaded.await {
            Ok(measured) => measured,
            Err(failure) => return Err(self.abandon(failure, &made).await),
        };
        mark.take_away().await;
        let after = self.after(&mut cluster, &mut measured.report, &made);
        let (verified, complaint) = after.instrument(info_span!("verify")).await;
        let span_files: Vec<PathBuf> =
            std::iter::once(measured.span_file.clone()).chain(cluster.span_files()).collect();
        let stopped = cluster.stop(Keep::Nothing).await;
        match write_traces_json(&self.directory, &span_files) {
            // What they hold is in traces.json now, as far as it fits.
            Ok(_) => span_files.iter().for_each(|file| drop(std::fs::remove_file(file))),
            Err(error) => self.tell(&format!("traces.json could not be written: {error}")),
        }
        if let Err(error) = stopped {
            self.tell(&format!("stopping the cluster: {error:#}"));
        }
        let failure = measured.failure.take();
        let finished = self.write(measured, verified).blame(Exit::Usage)?;
        for complaint in failure.iter().chain(&complaint) {
            eprintln!("zoometry: {complaint:#}");
        }
        if failure.is_some() || complaint.is_some() {
            return Ok(Finished { exit: Exit::Cluster, ..finished });
        }
        Ok(finished)
    }

    /// There will be no results: takes away what was left on a cluster that is not ours, and the directory. A failed
    /// member's log is kept.
    async fn abandon(&self, failure: Failure, made: &Made) -> Failure {
        if !self.options.cluster.is_started_here()
            && let Ok(cluster) = Cluster::hosts(&self.options.cluster)
            && let cluster = cluster.with_credentials(self.options.credentials.clone())
            && let Ok(mut client) = cluster.client(OWN_TIMEOUT_MS, Instant::now()).await
        {
            let cleaned = driver::clean_up(&mut client, &self.places, made).await;
            // It is not there if the create whose answer was lost was not carried out.
            if made.own && cleaned.is_err() && !matches!(client.stat(&self.places.run).await, Ok(None)) {
                self.tell(&format!("{} is left behind", self.places.run));
            }
            client.close().await;
        }
        let _ = std::fs::remove_file(self.directory.join(SPAN_FILE));
        if !self.journal.open().is_empty() {
            // Somebody will need it.
            return failure;
        }
        self.journal.forget();
        let _ = match failure.exit {
            Exit::Usage | Exit::Cluster => std::fs::remove_dir(&self.directory),
            _ => std::fs::remove_dir_all(&self.directory),
        };
        failure
    }

    fn tell(&self, text: &str) {
        if self.show != Show::Nothing {
            eprintln!("{text}");
        }
    }

    /// The cluster, and the run's znodes on it.
    async fn before(&self, made: &mut Made) -> Result<(Cluster, Zxid, Mark), Failure> {
        let home = match &self.options.data_dir {
            Some(data_dir) => data_dir.join(self.places.run.rsplit('/').next().unwrap_or("run")),
            None => self.directory.join("cluster"),
        };
        let mut waiting = Waiting::new(self.show);
        let tracing = Tracing {
            sample: self.options.trace_sample,
            slow_ms: SLOW_TRACE_MS,
            slowest: SLOWEST_ON_SERVER,
            clients: Clients::Ours,
        };
        let has = |is: fn(&FaultKind) -> bool| self.spec.faults.iter().any(|fault| is(&fault.kind));
        let cuts = has(|kind| matches!(kind, FaultKind::Cut));
        let slows = has(|kind| matches!(kind, FaultKind::SlowDisk { .. }));
        let links = if cuts { Links::Relayed } else { Links::Direct };
        let disks = if slows { Disks::Slowed } else { Disks::Plain };
        let zoo_cfg = &self.options.zoo_cfg;
        let making = Making { tracing, links, disks, zoo_cfg, client_ports: &[], metrics_ports: &[] };
        let cluster =
            Cluster::start(&self.options.cluster, &home, making, &mut waiting).await.blame(Exit::Cluster)?;
        let cluster = cluster.with_credentials(self.options.credentials.clone());
        waiting.done();
        faults::check_commands(&self.spec, &cluster).blame(Exit::Usage)?;
        if let Some(advice) = self.options.cluster.advice() {
            self.tell(&advice);
        }
        for warning in cluster.warnings_of(&self.options.zoo_cfg) {
            self.tell(&format!("warning of server.1: {warning}"));
        }
        let deadline = Instant::now() + REACH_LIMIT;
        let mut client = cluster
            .client(OWN_TIMEOUT_MS, deadline)
            .await
            .with_context(|| {
                format!(
                    "the cluster {} cannot be used (expected: ZooKeeper's client ports, without TLS)",
                    cluster.connect_string()
                )
            })
            .blame(Exit::Cluster)?;
        self.look_around(&mut client).await.map_err(|error| self.denied(error)).blame(Exit::Cluster)?;
        let total = self.keys.len();
        let what = format!("creating {} znodes below {}", figures::count(total), self.places.run);
        let mut counting = Counting::new(self.show, &what, total);
        let progress = |done, _| counting.at(done);
        let prepared =
            driver::prepare(&mut client, &self.spec, &self.plan, &self.places, &self.keys, made, progress)
                .await
                .map_err(|error| self.denied(error).context("preparing the data"))
                .blame(Exit::Cluster)?;
        let mark = Mark::keep(client, &cluster, &self.places.run);
        Ok((cluster, prepared, mark))
    }

    /// What to do about a data root that is not open to us.
    fn denied(&self, error: anyhow::Error) -> anyhow::Error {
        let denied = Some(zoometry_wire::ErrorCode::NoAuth.code());
        if error.downcast_ref::<Refused>().map(|refused| refused.code) != denied {
            return error;
        }
        let whom = match self.options.credentials.is_empty() {
            true => {
                "sessions that do not say who they are: give their credentials, ZOOMETRY_AUTH=digest:user:password in the \
                 environment or --auth-file FILE"
            }
            false => "sessions with these credentials: give others",
        };
        error.context(format!(
            "data.root = {:?} is closed to {whom}; or choose a root that is open, --set data.root=/path",
            self.spec.data.root
        ))
    }

    /// Before anything is made on a cluster that is not ours: whether the chroot is there, and what killed runs left.
    async fn look_around(&self, client: &mut Client) -> Result<()> {
        if self.options.cluster.is_started_here() {
            return Ok(());
        }
        let chroot = self.options.cluster.chroot();
        if !chroot.is_empty() && client.stat(chroot).await?.is_none() {
            bail!("the chroot {chroot} of {} is not there; create it first", self.options.cluster);
        }
        let root = format!("{chroot}{}", self.spec.data.root);
        if let Some(told) = leftovers::told(&leftovers::found(client, &root).await?, &self.options.cluster) {
            self.tell(&told);
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------- the load

    async fn load(
        &mut self,
        cluster: &mut Cluster,
        members: Vec<MemberFingerprint>,
        prepared: Zxid,
    ) -> Result<Measured, Failure> {
        let cores = scrape::cores();
        let most = self.spec.sessions.count.max(1);
        let workers =
            self.options.workers.unwrap_or_else(|| workers_for(cores, cluster.is_local())).min(most);
        let span_file = self.directory.join(SPAN_FILE);
        let traces = self.start_traces(cluster, &span_file).blame(Exit::Usage)?;
        let samplers = (0..workers).map(|_| traces.sampler()).collect();
        let leader = cluster.leader().await;
        if leader.is_none() && self.spec.sessions.placement == Placement::Leader {
            return Err(anyhow!(
                "sessions.placement: no member of {} says that it leads",
                cluster.connect_string()
            ))
            .blame(Exit::Cluster);
        }
        let interval_ns = interval_of(self.spec.phases.iter().map(|phase| phase.duration_ns).sum());
        let handovers: Vec<Arc<Handover>> = (0..workers).map(|_| Arc::default()).collect();
        let settings = Settings {
            clock: self.clock,
            spec: self.spec.clone(),
            plan: self.plan.clone(),
            keys: self.keys.clone(),
            places: self.places.clone(),
            prepared,
            members: cluster.addresses(),
            leader,
            workers,
            credentials: self.options.credentials.clone(),
            interval_ns,
            handovers: handovers.clone(),
        };
        let driver =
            Driver::start(settings, samplers).context("start the worker threads").blame(Exit::Usage)?;
        let control = driver.control().clone();
        if let Err(failure) = self.attach(&control, cluster).await {
            control.abort();
            // What it has to say is of no interest any more.
            let _ = driver.join();
            return Err(failure);
        }
        // With an interval: what ends in the last one of a phase then ended within the phase.
        let start_ns = (self.clock.now_ns() + LEAD_NS).next_multiple_of(interval_ns);
        let mut manifest = manifest::manifest(self.options, &self.spec);
        manifest.started_unix_ms = self.started_unix_ms;
        manifest.workers = workers;
        manifest.connections = self.connections(cluster, &control);
        manifest.environment = scrape::environment(cluster.directory.as_deref(), cluster.is_local());
        manifest.members = members;
        manifest.phases = manifest::phases(&self.spec, start_ns);
        let said: Arc<Mutex<Said>> = Arc::default();
        let sources = Sources { clock: self.clock, interval_ns, handovers, said: said.clone() };
        let mut collector = results::begin(&self.directory, &manifest)
            .and_then(|()| Collector::start(&self.directory, &manifest, &self.spec, sources))
            .blame(Exit::Usage)?;
        control.go(start_ns);
        let scraper = Scraper::start(self.clock, cluster, self.boundaries(start_ns), said);
        let faults = match self.spec.faults.is_empty() {
            true => None,
            false => Some(
                Faults::start(&self.spec, cluster, self.clock, start_ns, self.journal.clone())
                    .blame(Exit::Usage)?,
            ),
        };
        let Ending { cut_short_by, failure } =
            self.watch_over(&driver, cluster, faults, start_ns, &mut collector).await;
        scraper.stop().await;
        let mut report = driver.join().blame(Exit::Usage)?;
        let ended_ns = if cut_short_by.is_some() { report.ended_ns } else { u64::MAX };
        let standing = std::mem::take(&mut report.watching.standing);
        let collected = collector.finish(standing, ended_ns).blame(Exit::Usage)?;
        report.watching.counts.add(&collected.watches);
        report.completions_unkept += collected.completions_unkept;
        traces.finish();
        Ok(Measured { report, manifest, cut_short_by, failure, span_file })
    }

    fn start_traces(&self, cluster: &Cluster, span_file: &Path) -> Result<Traces> {
        let run = self.places.run.rsplit('/').next().unwrap_or_default();
        let settings = TraceSettings {
            identity: Identity::new(0, SampleRate::from_probability(self.options.trace_sample)),
            slowest_per_second: SLOWEST_PER_SECOND,
            clock: self.clock,
            phases: self.spec.phases.iter().map(|phase| phase.name.clone()).collect(),
            servers: cluster.addresses().iter().map(|a| (a.ip().to_string(), a.port())).collect(),
            exporter: self.options.exporter.clone(),
            resource: Resource::load_generator(env!("CARGO_PKG_VERSION"), run).with_env(),
            span_file: span_file.to_owned(),
        };
        Traces::start(settings).with_context(|| format!("write {}", span_file.display()))
    }

    /// Start of the first phase, and the end of each.
    fn boundaries(&self, start_ns: u64) -> Vec<u64> {
        let mut at = start_ns;
        let ends = self.spec.phases.iter().map(|phase| {
            at += phase.duration_ns;
            at
        });
        std::iter::once(start_ns).chain(ends).collect()
    }

    /// Waits until every session is attached and the first phase's watches are armed.
    async fn attach(&self, control: &Control, cluster: &mut Cluster) -> Result<(), Failure> {
        let sessions = self.spec.sessions.count + self.spec.watcher_sessions() as u32;
        let first = self.spec.watchers.iter().filter(|group| group.phases.contains(&0));
        let watches: u64 = first.map(|group| driver::watches_of(&self.spec, group)).sum();
        let started = Instant::now();
        let mut waiting = Waiting::new(self.show);
        let mut signals = self.signals.clone();
        while control.attached() < sessions || control.armed() < watches {
            let (attached, armed) = (control.attached(), control.armed());
            if let Some(fallen) = cluster.fallen() {
                return Err(anyhow!(fallen)).blame(Exit::Cluster);
            }
            if let Some(why) = control.unarmed() {
                return Err(anyhow!("{why}; {armed} of {watches} watches are armed")).blame(Exit::Cluster);
            }
            if started.elapsed() > ATTACH_LIMIT {
                let why =
                    control.trouble().map_or_else(String::new, |why| format!("; the last trouble: {why}"));
                return Err(anyhow!(
                    "after {ATTACH_LIMIT:?}, {attached} of {sessions} sessions are open and {armed} of {watches} watches \
                     armed{why} (a server's maxClientCnxns limits connections per address, 60 by default)"
                ))
                .blame(Exit::Cluster);
            }
            waiting.still(started.elapsed(), || {
                format!("opening sessions: {attached} of {sessions}, watches: {armed} of {watches}")
            });
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                signal = signals.came(1) => return Err(interrupted(signal)),
            }
        }
        Ok(())
    }

    fn connections(&self, cluster: &Cluster, control: &Control) -> std::collections::BTreeMap<String, u32> {
        let counts = control.connections();
        cluster.members.iter().zip(counts).map(|(member, n)| (member.name.clone(), n)).collect()
    }

    /// Shows progress and carries out faults until the workers have ended; says whether somebody ended them early.
    async fn watch_over(
        &mut self,
        driver: &Driver,
        cluster: &mut Cluster,
        mut faults: Option<Faults>,
        start_ns: u64,
        collector: &mut Collector,
    ) -> Ending {
        let control = driver.control();
        let bounds = self.boundaries(start_ns);
        let mut load = Load::new(self.show);
        let mut ending = Ending::default();
        let mut fallen = false;
        let mut signals = self.signals.clone();
        let mut refreshed = Instant::now();
        while !driver.is_finished() {
            let step = async {
                match &mut faults {
                    Some(faults) => faults.due().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = step => {}
                () = tokio::time::sleep(REFRESH.saturating_sub(refreshed.elapsed())) => {}
                signal = signals.came(1), if ending.cut_short_by.is_none() => {
                    ending.cut_short(signal.name().to_owned(), control);
                    load.note(&format!(
                        "{}: waiting for replies, then writing what was measured (once more: end at once)",
                        signal.name()
                    ));
                }
            }
            if let Some(faults) = &mut faults {
                if ending.cut_short_by.is_some() {
                    faults.wind_up();
                }
                let advanced = faults.advance(cluster);
                faults.told().iter().for_each(|told| load.note(told));
                if let Err(error) = advanced {
                    load.note(&format!("{error:#}"));
                    ending.failed(error, control);
                }
            }
            if refreshed.elapsed() < REFRESH {
                continue;
            }
            refreshed = Instant::now();
            if let Some(faults) = &faults {
                collector.tell(faults.so_far());
            }
            if ending.cut_short_by.is_none()
                && let Some(trouble) = collector.trouble()
            {
                ending.cut_short(trouble, control);
            }
            let now_ns = self.clock.now_ns();
            if !fallen && let Some(how) = cluster.fallen() {
                fallen = true;
                load.note(&how);
                collector.tell(vec![EventRow {
                    at_ns: now_ns,
                    duration_ns: 0,
                    kind: "fault".into(),
                    target: cluster.connect_string(),
                    detail: how.lines().next().unwrap_or_default().to_owned(),
                }]);
            }
            let phase = bounds[1..].partition_point(|end| *end <= now_ns).min(self.spec.phases.len() - 1);
            let spec = &self.spec.phases[phase];
            let position = Position {
                phase,
                phases: self.spec.phases.len(),
                name: &spec.name,
                elapsed: Duration::from_nanos(now_ns.saturating_sub(bounds[phase])),
                duration: Duration::from_nanos(spec.duration_ns),
            };
            if now_ns >= start_ns {
                load.update(position, control.take_recent());
            }
        }
        load.done();
        if let Some(faults) = faults {
            let (events, undone) = faults.finish(cluster).await;
            collector.tell(events);
            if let Err(error) = undone {
                ending.failed(error, control);
            }
        }
        ending
    }

    // ------------------------------------------------------------------------------------- afterwards

    /// Looks for what was acknowledged and cleans up. What went wrong comes second.
    async fn after(
        &self,
        cluster: &mut Cluster,
        report: &mut Report,
        made: &Made,
    ) -> (Option<Verified>, Option<anyhow::Error>) {
        let look = async {
            let deadline = Instant::now() + REACH_LIMIT;
            let mut client = cluster.client(OWN_TIMEOUT_MS, deadline).await?;
            let verified = driver::verify(&mut client, &self.spec, &self.places, &self.keys, report).await?;
            anyhow::Ok((client, verified))
        };
        let (mut client, verified) = match look.await {
            Ok(found) => found,
            Err(error) => {
                let fallen = cluster.fallen().map_or_else(String::new, |how| format!("; {how}"));
                return (
                    None,
                    Some(error.context(format!(
                        "after the load the cluster could not be asked what it kept{fallen}"
                    ))),
                );
            }
        };
        let cleaned = driver::clean_up(&mut client, &self.places, made).await;
        client.close().await;
        let complaint = cleaned.err().map(|error| error.context("cleaning up"));
        (Some(verified), complaint)
    }
}

/// Draws the charts and the report of a results directory again, and prints its summary.
pub fn report(directory: &Path) -> Result<()> {
    let run = results::read(directory)?;
    let summary = Summary::of(&run);
    if run.manifest.state == results::State::Running {
        // Its run never came to it.
        results::put_summary(directory, &summary)?;
    }
    let path = crate::report::write(directory)?;
    say(&summary::table(&run.manifest, &summary, summary::Style::of_stdout()));
    say(&format!("\nreport   {}\n", path.display()));
    if let Some(left) = heal::left_in(directory) {
        eprintln!("zoometry: {left}");
    }
    Ok(())
}

/// Prints how sides compare, and where the comparison is.
pub fn compare(sides: &[crate::compare::Side], options: &crate::compare::Options) -> Result<()> {
    let comparison = crate::compare::many(sides, options)?;
    say(&comparison.text);
    if let Some(report) = &comparison.report {
        say(&format!("\nreport   {}\n", report.display()));
    }
    Ok(())
}

/// Writes to standard output. A reader that has gone away (`| head`) has seen what it wanted.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::journal::{Entry, Undo};
    use crate::faults::state::Condition;

    #[test]
    fn a_panic_leaves_no_fault_in_force() {
        let _turn = crate::signals::tests::TURN.lock().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mended = directory.path().join("mended");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let kept = OnceLock::new();
        let whole = async {
            let journal = Arc::new(Journal::new(directory.path(), "lab".into(), None));
            let entry = Entry {
                server: 1,
                member: "zk1:2181".into(),
                condition: Condition::Stopped,
                fault: "stop server.1 (leader)".into(),
                at_unix_ms: 0,
                undo: Undo::Command(Some(format!("touch {}", mended.display()))),
                stays: false,
            };
            kept.set((journal.clone(), Signals::listen().unwrap())).unwrap();
            journal.begin(entry).unwrap();
            panic!("in the middle of a fault");
        };
        let ended = catch_unwind(AssertUnwindSafe(|| to_the_end(&runtime, whole, &kept)));
        assert!(ended.is_err() && mended.exists());
        assert!(kept.get().unwrap().0.open().is_empty());
    }
}
