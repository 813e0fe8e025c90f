//! `zoometry-sim`: lives through simulated worlds from seeds.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use zoometry_sim::story::Story;
use zoometry_sim::{World, judged};

/// Real ZooKeeper member code in simulated worlds; the same seed gives the same life.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  zoometry-sim many --count 1000\n  zoometry-sim run --seed 7 --world whole\n  zoometry-sim twice --seed 7\n  zoometry-sim bite          (built with --features deliberate-bugs)"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Only worlds of this kind: store, zab or whole
    #[arg(long, global = true)]
    world: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Live through one seed, and tell everything that happens
    Run {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// With this mistake in the replica's code
        #[cfg(feature = "deliberate-bugs")]
        #[arg(long)]
        bug: Option<String>,
    },
    /// Live through many seeds
    Many {
        /// How many
        #[arg(long)]
        count: u64,
        /// The first
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Live through one seed twice; the two stories must be equal
    Twice {
        /// The seed
        #[arg(long)]
        seed: u64,
    },
    /// Live through worlds with a mistake in the replica's code, until the judges object
    #[cfg(feature = "deliberate-bugs")]
    Bite {
        /// Only this mistake
        #[arg(long)]
        bug: Option<String>,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |world: &World| args.world.as_deref().is_none_or(|name| name == world.name());
    let worlds: Vec<World> = World::ALL.into_iter().filter(wanted).collect();
    if worlds.is_empty() {
        eprintln!("zoometry-sim: --world: expected store, zab or whole");
        return ExitCode::from(2);
    }
    #[cfg(feature = "deliberate-bugs")]
    if let Command::Bite { bug, from } = &args.command {
        return bite(bug.as_deref(), *from);
    }
    let mut failed = 0;
    for world in worlds {
        failed += match &args.command {
            #[cfg(not(feature = "deliberate-bugs"))]
            Command::Run { seed } => run(world, *seed),
            #[cfg(feature = "deliberate-bugs")]
            Command::Run { seed, bug } => match chosen(bug.as_deref()) {
                Ok(bug) => {
                    zoometry_replica::deliberate::choose(bug);
                    run(world, *seed)
                }
                Err(code) => return code,
            },
            Command::Many { count, from } => many(world, *from, *count),
            Command::Twice { seed } => twice(world, *seed),
            #[cfg(feature = "deliberate-bugs")]
            Command::Bite { .. } => unreachable!("done above"),
        };
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(world: World, seed: u64) -> u64 {
    match judged(world, seed, Story::aloud()) {
        Ok(story) => println!("{} {seed}: {} lines, no objection", world.name(), story.lines()),
        Err(objection) => {
            println!("{} {seed}: {objection}", world.name());
            return 1;
        }
    }
    0
}

fn many(world: World, from: u64, count: u64) -> u64 {
    let started = Instant::now();
    let mut failures = 0;
    for seed in from..from + count {
        if let Err(objection) = judged(world, seed, Story::silent()) {
            failures += 1;
            println!("{} {seed}: {objection}", world.name());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let name = world.name();
    println!(
        "{name}: {count} seeds from {from}, {failures} failed, in {seconds:.1} s ({:.1} seeds/s)",
        count as f64 / seconds
    );
    if failures > 0 {
        println!("for the story of one: zoometry-sim run --world {name} --seed N");
    }
    failures
}

fn twice(world: World, seed: u64) -> u64 {
    let [first, second] = [0, 1].map(|_| judged(world, seed, Story::default()));
    let (equal, lines) = match (&first, &second) {
        (Ok(first), Ok(second)) => (first.fingerprint() == second.fingerprint(), first.lines()),
        (first, second) => (first.as_ref().err() == second.as_ref().err(), 0),
    };
    println!("{}: {lines} lines, {}", world.name(), if equal { "equal" } else { "DIFFERENT" });
    u64::from(!equal)
}

#[cfg(feature = "deliberate-bugs")]
fn chosen(name: Option<&str>) -> Result<Option<zoometry_replica::deliberate::Bug>, ExitCode> {
    let Some(name) = name else { return Ok(None) };
    let found = zoometry_sim::bite::PROOFS.iter().find(|proof| proof.name == name);
    if found.is_none() {
        let names: Vec<&str> = zoometry_sim::bite::PROOFS.iter().map(|proof| proof.name).collect();
        eprintln!("zoometry-sim: --bug: there is no {name}; expected one of {}", names.join(", "));
        return Err(ExitCode::from(2));
    }
    Ok(found.map(|proof| proof.bug))
}

#[cfg(feature = "deliberate-bugs")]
fn bite(name: Option<&str>, from: u64) -> ExitCode {
    let only = match chosen(name) {
        Ok(only) => only,
        Err(code) => return code,
    };
    let mut missed = 0;
    println!("{:28} caught within  objection", "mistake");
    for proof in zoometry_sim::bite::PROOFS {
        if only.is_some_and(|bug| bug != proof.bug) {
            continue;
        }
        match proof.prove(from) {
            Some((seeds, objection)) => {
                let first_line: String = objection.chars().take(150).collect();
                println!("{:28} {seeds:>6} {:>6}  {first_line}", proof.name, proof.seeds_max);
            }
            None => {
                missed += 1;
                println!("{:28} {:>6} {:>6}  NOT CAUGHT", proof.name, "-", proof.seeds_max);
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
