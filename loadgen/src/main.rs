//! The command line of `zoometry`.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use zoometry::cluster::{Clients, Cluster, DEFAULT_MEMBERS, Disks, Keep, Links, Making, Tracing, Wanted};
use zoometry::compare::Side;
use zoometry::credentials::Credentials;
use zoometry::progress::{Show, Waiting};
use zoometry::run::{self, Exit, Options, Print, Repeats};
use zoometry::signals::Signals;
use zoometry_spans::{Resource, Setup, init_tracing};

/// A seventh of a write's CPU time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last spans may take to reach the OTLP endpoint at the end.
const LAST_SPANS: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  zoometry run workloads/read-heavy.toml
      starts an ensemble of three on this machine, runs the workload, stops it
  zoometry run workloads/read-heavy.toml --cluster zk1:2181,zk2:2181,zk3:2181
      the same against a cluster that is already there
  zoometry run workloads/read-heavy.toml --cluster apache:3 \\
      --set phase.high.duration=5s
      against a local Apache ZooKeeper, one phase shortened
  zoometry run workloads/leader-failover.toml
      what clients see of a leader's death
  zoometry heal
      undoes the faults that a killed run has left in force
  zoometry up 3
      just an ensemble, to play with; prints how to connect

Exit codes of run: 0 VALID or SUSPECT, and all expectations met; 1 an
expectation failed; 2 bad input or usage; 3 the run is INVALID; 4 the cluster
could not be reached, broke a promise, or is left with a fault in force (its
last words say how to mend it: zoometry heal); 129, 130, 131, 143 a run that
SIGHUP, SIGINT, SIGQUIT or SIGTERM has ended. The first signal ends the load
and writes what was measured, the second ends the run at once; both undo the
faults in force.";

/// Measures ZooKeeper-protocol coordination services: load, latency, charts.
#[derive(Parser)]
#[command(name = "zoometry", version, after_help = EXAMPLES, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a workload file and leave a results directory
    Run(RunArgs),
    /// Say what a run of a workload file would be, without a cluster; exit code 2 if it has faults
    Check {
        /// The workload
        file: PathBuf,
        /// Override a value of the workload; repeatable
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Remove what runs that were killed left on a cluster; what a run that lives uses stays
    Clean {
        /// The cluster: host:port,host:port, with /chroot if it has one, or a cluster file
        cluster: Wanted,
        /// The data root of the workloads
        #[arg(long, value_name = "PATH", default_value = "/zoometry", value_parser = root)]
        root: String,
        #[command(flatten)]
        auth: AuthArgs,
    },
    /// Start servers on this machine, and nothing else; Ctrl-C stops them
    Up(UpArgs),
    /// Write the charts and report.html of a results directory again
    Report {
        /// The results directory
        directory: PathBuf,
    },
    /// Undo faults that a run has left in force, as after kill -9
    #[command(
        long_about = "Undoes what a run has left in force: members of a real cluster that are stopped, cut off, \
                      slowed or down. A run undoes its faults itself, at its end and on Ctrl-C, SIGTERM and \
                      SIGHUP; after kill -9 nobody does. Each fault and the command that undoes it are in \
                      faults.journal in the results directory. Calling it again does no harm.\n\n\
                      Given a cluster file, heals the runs that loaded that cluster; if there are none, runs every \
                      command of the file that mends something (restart only where a member does not answer).",
        after_help = "Examples:\n  zoometry heal\n      the newest run below results/ that left anything\n  \
                      zoometry heal results/20261130T101500Z-failover-lab\n  zoometry heal lab.toml\n\n\
                      Exit codes: 0 nothing is left in force; 2 bad usage, or the run still goes\non; 4 something \
                      could not be undone, and is named."
    )]
    Heal {
        /// A results directory, or a cluster file (.toml)
        #[arg(value_name = "RESULTS|CLUSTER-FILE")]
        what: Option<PathBuf>,
        /// Where the results directories are
        #[arg(long, value_name = "DIR", default_value = "results")]
        out: PathBuf,
    },
    /// Compare results directories; or run a workload on several clusters and compare those
    #[command(
        long_about = "Compares sides of one or more runs each, and writes compare.html with its charts into a directory \
                      of the comparison's own.\n\n\
                      Sides are named by --baseline and --candidate, or by --side for other names and more of them. \
                      Without names, two directories are compared with each other, and so are several of one cluster; \
                      of more, those of the same cluster are its repeated runs. Sides that were not asked the same, \
                      and INVALID runs, are refused.\n\n\
                      With a workload file and --cluster, runs it on each cluster in turn, --repeats times, \
                      and compares the results.",
        after_help = "Examples:\n  zoometry compare results/A results/B\n  zoometry compare --baseline results/before-* \
                      --candidate results/after-*\n  zoometry compare --side 1k= results/1k-* --side 4k= results/4k-* \
                      --side 16k= results/16k-*\n  zoometry compare \
                      workloads/speed-read.toml --repeats 5 \\\n      --cluster zoometry:3 --cluster apache:3\n  \
                      zoometry compare workloads/speed-write.toml --cluster plain=zoometry:3 \\\n      \
                      --cluster nosync=zoometry:3 --zoo-cfg nosync:forceSync=no --force"
    )]
    Compare(CompareArgs),
    /// Run one server in the foreground, as zoometry-server does
    #[command(long_about = "Runs one server in the foreground from a zoo.cfg, exactly as the program \
                      zoometry-server does. `run` and `up` start their local members this way.")]
    Server {
        /// Its zoo.cfg, or an option of zoometry-server
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Who the sessions are. ZOOMETRY_AUTH in the environment works as --auth does, and other users do not see it.
#[derive(clap::Args)]
struct AuthArgs {
    /// Credentials of every session, such as digest:user:password; repeatable. Other users of this
    /// machine can see them in its list of processes: the environment variable ZOOMETRY_AUTH, or
    /// --auth-file, keep them out of it
    #[arg(long = "auth", value_name = "SCHEME:SECRET")]
    credentials: Vec<String>,
    /// A file with credentials, one a line, that only its owner may read
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
}

impl AuthArgs {
    fn collect(&self) -> anyhow::Result<Credentials> {
        let variable = std::env::var_os(zoometry::credentials::VARIABLE);
        Credentials::collect(&self.credentials, self.auth_file.as_deref(), variable.as_deref())
            .map_err(anyhow::Error::msg)
    }
}

fn root(text: &str) -> Result<String, String> {
    match zoometry_wire::path::validate(text) {
        Ok(()) if text != "/" => Ok(text.to_owned()),
        Ok(()) => Err("expected a znode below /".into()),
        Err(error) => Err(format!("expected the path of a znode, but {error}")),
    }
}

#[derive(clap::Args)]
struct RunArgs {
    /// The workload, a TOML file; workloads/README.md describes the language
    file: PathBuf,
    /// Whom to load: zoometry:N or apache:N (started on this machine), host:port,host:port (with a
    /// /chroot behind it if need be), or a cluster file
    #[arg(long, value_name = "CLUSTER", default_value_t = Wanted::Zoometry(DEFAULT_MEMBERS))]
    cluster: Wanted,
    /// Override a value of the workload, such as phase.high.duration=5s; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where the results directory is made
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Where servers started for the run keep their data [default: in the results directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A line for the zoo.cfg of every server started for the run, such as tickTime=500; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = zoo_cfg_line)]
    zoo_cfg: Vec<(String, String)>,
    /// Worker threads of the load generator [default: by the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Share of requests to trace, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.001", value_parser = share)]
    trace_sample: f64,
    /// Draw no charts and write no report
    #[arg(long)]
    no_charts: bool,
    /// Check everything that can be checked before a run, say what it would be, and run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    auth: AuthArgs,
    /// Print nothing but the summary
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Args)]
struct CompareArgs {
    /// Results directories, the first one's side is what ratios refer to; or one workload file
    #[arg(required_unless_present_any = ["baseline", "candidate", "sides"], value_name = "DIRECTORY|WORKLOAD")]
    inputs: Vec<PathBuf>,
    /// Results directories of the side that ratios refer to
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "candidate", conflicts_with_all = ["inputs", "sides"])]
    baseline: Vec<PathBuf>,
    /// Results directories of the other side
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "baseline", conflicts_with_all = ["inputs", "sides"])]
    candidate: Vec<PathBuf>,
    /// A side by another name, with its results directories; repeatable, the first is what ratios refer to
    #[arg(long = "side", value_name = "LABEL=DIR", num_args = 1.., conflicts_with = "inputs")]
    sides: Vec<String>,
    /// A cluster to run the workload on, with a name for its side if it shall have another; at least two
    #[arg(long = "cluster", value_name = "[LABEL=]CLUSTER")]
    clusters: Vec<String>,
    /// Runs per cluster; from 3 on, differences between runs are what is judged
    #[arg(long, value_name = "N", default_value = "3", requires = "clusters", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Override a value of the workload; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "clusters")]
    overrides: Vec<String>,
    /// A line for the zoo.cfg of every server that is started, or of those of one side; repeatable
    #[arg(long, value_name = "[LABEL:]KEY=VALUE", requires = "clusters")]
    zoo_cfg: Vec<String>,
    /// Where the directories of the comparison and of its runs are made
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Compare even what should not be compared
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    auth: AuthArgs,
}

#[derive(clap::Args)]
struct UpArgs {
    /// How many servers, 1 to 9
    #[arg(default_value_t = DEFAULT_MEMBERS)]
    members: u32,
    /// Start Apache ZooKeeper instead of our own server
    #[arg(long)]
    apache: bool,
    /// Keep the data here [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A line for every server's zoo.cfg; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = zoo_cfg_line)]
    zoo_cfg: Vec<(String, String)>,
    /// The servers' client ports: the first of as many in a row, or all of them with commas
    /// [default: any free ones]
    #[arg(long, value_name = "PORT[,PORT...]")]
    ports: Option<String>,
    /// Every server shows Prometheus what it measures, on a port of its own: the first of as many in
    /// a row, all of them with commas, or any free ones. Apache's needs its Prometheus jars
    #[arg(long, value_name = "PORT[,PORT...]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    metrics: Option<String>,
}

/// `2181` for as many in a row as there are members, `2181,2191,2201` for these, nothing for any free ones.
fn ports_of(text: &str, members: u32) -> anyhow::Result<Vec<u16>> {
    let expected = || {
        anyhow::anyhow!("`{text}`: expected a port from 1 to 65535, or {members} different ones with commas")
    };
    if text.is_empty() {
        return zoometry::cluster::free_ports(members);
    }
    let given: Vec<u16> =
        text.split(',').map(|port| port.trim().parse()).collect::<Result<_, _>>().map_err(|_| expected())?;
    let ports: Vec<u16> = match given[..] {
        [first] => (0..members as u16).map_while(|n| first.checked_add(n)).collect(),
        _ => given,
    };
    let distinct: std::collections::BTreeSet<&u16> = ports.iter().collect();
    anyhow::ensure!(
        distinct.len() == members as usize && ports.len() == distinct.len() && !ports.contains(&0),
        expected()
    );
    Ok(ports)
}

fn zoo_cfg_line(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.trim().into())),
        _ => Err("expected KEY=VALUE as in zoo.cfg, for example tickTime=500".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run_workload(args),
        Command::Check { file, overrides } => exit_of(run::check(&file, &overrides), Exit::Usage),
        Command::Clean { cluster, root, auth } => {
            let cleaned = auth.collect().and_then(|credentials| run::clean(&cluster, &root, &credentials));
            exit_of(cleaned, Exit::Cluster)
        }
        Command::Up(args) => up(args),
        Command::Report { directory } => exit_of(run::report(&directory), Exit::Usage),
        Command::Compare(args) => compare(args),
        Command::Heal { what, out } => match zoometry::faults::heal::heal(what.as_deref(), &out) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(Exit::Cluster as u8),
            Err(error) => exit_of(Err(error), Exit::Usage),
        },
        Command::Server { arguments } => zoometry_server::cli::main(arguments.into_iter()),
    }
}

fn complain(error: &anyhow::Error) {
    eprintln!("zoometry: {error:#}");
}

fn exit_of(result: anyhow::Result<()>, exit: Exit) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit as u8)
        }
    }
}

fn run_workload(args: RunArgs) -> ExitCode {
    // One process, one instance in traces; its runs differ by their sessions.
    let instance = std::process::id().to_string();
    let resource = Resource::load_generator(env!("CARGO_PKG_VERSION"), &instance);
    let telemetry = match init_tracing(Setup { resource, log: None, default_level: "warn" }) {
        Ok(telemetry) => telemetry,
        Err(error) => return exit_of(Err(error.into()), Exit::Usage),
    };
    let credentials = match args.auth.collect() {
        Ok(credentials) => credentials,
        Err(error) => return exit_of(Err(error), Exit::Usage),
    };
    let options = Options {
        credentials,
        file: args.file,
        cluster: args.cluster,
        overrides: args.overrides,
        out: args.out,
        data_dir: args.data_dir,
        charts: !args.no_charts,
        quiet: args.quiet,
        print: Print::Summary,
        workers: args.workers,
        zoo_cfg: args.zoo_cfg,
        trace_sample: args.trace_sample,
        exporter: telemetry.exporter().cloned(),
        command: run::command_line(std::env::args_os()),
    };
    if args.dry_run {
        return exit_of(run::dry_run(&options), Exit::Usage);
    }
    let result = run::run(&options);
    // The options hold a handle on the queue; what it still holds goes out now.
    telemetry.shutdown(LAST_SPANS);
    match result {
        Ok(finished) => ExitCode::from(finished.exit as u8),
        Err(failure) => {
            complain(&failure.error);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn compare(args: CompareArgs) -> ExitCode {
    let compare = zoometry::compare::Options { force: args.force, out: Some(args.out.clone()) };
    if args.clusters.is_empty() {
        let compared = sides(&args).and_then(|sides| run::compare(&sides, &compare));
        return exit_of(compared, Exit::Usage);
    }
    let ([file], 2..) = (&args.inputs[..], args.clusters.len()) else {
        eprintln!("zoometry: with --cluster, compare takes one workload file and at least two clusters");
        return ExitCode::from(Exit::Usage as u8);
    };
    let sides = match run::setups(&args.clusters, &args.zoo_cfg) {
        Ok(sides) => sides,
        Err(problem) => {
            eprintln!("zoometry: {problem}");
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let credentials = match args.auth.collect() {
        Ok(credentials) => credentials,
        Err(error) => return exit_of(Err(error), Exit::Usage),
    };
    let options = Options {
        credentials,
        file: file.clone(),
        cluster: sides[0].cluster.clone(),
        overrides: args.overrides,
        out: args.out,
        data_dir: None,
        charts: true,
        quiet: true,
        print: Print::Line,
        workers: None,
        zoo_cfg: Vec::new(),
        trace_sample: zoometry_spans::SampleRate::DEFAULT_PROBABILITY,
        exporter: None,
        command: run::command_line(std::env::args_os()),
    };
    let repeats = Repeats { options, sides, repeats: args.repeats, compare };
    match run::repeat(&repeats) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.error);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// The sides that results directories are put together to.
fn sides(args: &CompareArgs) -> anyhow::Result<Vec<Side>> {
    if !args.sides.is_empty() {
        return zoometry::compare::named(&args.sides);
    }
    if !args.baseline.is_empty() {
        let side = |label: &str, directories: &[PathBuf]| Side {
            label: label.to_owned(),
            directories: directories.to_vec(),
        };
        return Ok(vec![side("baseline", &args.baseline), side("candidate", &args.candidate)]);
    }
    anyhow::ensure!(
        args.inputs.len() >= 2,
        "name two results directories, or one workload file and two --cluster"
    );
    zoometry::compare::of_directories(&args.inputs)
}

fn up(args: UpArgs) -> ExitCode {
    let kind = if args.apache { "apache" } else { "zoometry" };
    let wanted = match format!("{kind}:{}", args.members).parse::<Wanted>() {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("zoometry: {problem}");
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_of(Err(error.into()), Exit::Usage),
    };
    let ports = |option: &str, text: &Option<String>| match text {
        None => Ok(Vec::new()),
        Some(text) => ports_of(text, args.members).with_context(|| option.to_owned()),
    };
    let both =
        ports("--ports", &args.ports).and_then(|client| Ok((client, ports("--metrics", &args.metrics)?)));
    let (client_ports, metrics_ports) = match both {
        Ok(both) => both,
        Err(error) => return exit_of(Err(error), Exit::Usage),
    };
    let stay = stay_up(&wanted, args.data_dir, &args.zoo_cfg, &client_ports, &metrics_ports);
    exit_of(runtime.block_on(stay), Exit::Cluster)
}

async fn stay_up(
    wanted: &Wanted,
    data_dir: Option<PathBuf>,
    zoo_cfg: &[(String, String)],
    client_ports: &[u16],
    metrics_ports: &[u16],
) -> anyhow::Result<()> {
    let keep = if data_dir.is_some() { Keep::Data } else { Keep::Nothing };
    let directory =
        data_dir.unwrap_or_else(|| std::env::temp_dir().join(format!("zoometry-up-{}", std::process::id())));
    let mut waiting = Waiting::new(Show::on_stderr(false));
    let sample = zoometry_spans::SampleRate::DEFAULT_PROBABILITY;
    let tracing = Tracing { sample, slow_ms: 100, slowest: 0, clients: Clients::Others };
    let (links, disks) = (Links::Direct, Disks::Plain);
    let making = Making { tracing, links, disks, zoo_cfg, client_ports, metrics_ports };
    let mut cluster = Cluster::start(wanted, &directory, making, &mut waiting).await?;
    waiting.done();
    show_up(&cluster, &directory, metrics_ports).await;
    for warning in cluster.warnings_of(zoo_cfg) {
        eprintln!("\nwarning of server.1: {warning}");
    }
    let mut signals = Signals::listen()?;
    loop {
        tokio::select! {
            _ = signals.came(1) => break,
            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {
                if let Some(how) = cluster.fallen() {
                    anyhow::bail!(how);
                }
            }
        }
    }
    cluster.stop(keep).await?;
    if keep == Keep::Nothing {
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

/// What somebody needs to know who wants to play with it.
async fn show_up(cluster: &Cluster, directory: &std::path::Path, metrics_ports: &[u16]) {
    let connect = cluster.connect_string();
    let mut members = String::new();
    let roles = cluster.roles().await;
    for (at, (member, role)) in cluster.members.iter().zip(roles).enumerate() {
        let role = role.unwrap_or_else(|| "does not say what it does".into());
        let metrics = metrics_ports.get(at).map(|port| format!("  http://127.0.0.1:{port}/metrics"));
        let metrics = metrics.unwrap_or_default();
        members.push_str(&format!("  {:<14}  {}  {role}{metrics}\n", member.name, member.host));
    }
    println!(
        "{} is up.\n\n{members}  connect string  {connect}\n  data            {}\n\n\
         Try:\n  zkCli.sh -server {connect}\n  python3 -c \"from kazoo.client import KazooClient; \
         c = KazooClient('{connect}'); c.start(); print(c.get_children('/'))\"\n  \
         zoometry run workloads/read-heavy.toml --cluster {connect}\n\nCtrl-C stops it.",
        cluster.wanted,
        directory.display()
    );
    if let Some(advice) = cluster.wanted.advice() {
        println!("\n{advice}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_a_port_of_its_own() {
        assert_eq!(ports_of("2181", 3).unwrap(), [2181, 2182, 2183]);
        assert_eq!(ports_of("2181, 2191,2201", 3).unwrap(), [2181, 2191, 2201]);
        assert_eq!(ports_of("", 2).unwrap().len(), 2);
        for bad in ["2181,2182", "2181,2181,2182", "0", "65535", "http", "2181,,2183"] {
            let error = ports_of(bad, 3).unwrap_err().to_string();
            assert!(error.contains("3 different ones"), "{bad}: {error}");
        }
    }
}
