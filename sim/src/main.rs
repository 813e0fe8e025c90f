//! `zoometry-sim`: lives through simulated worlds from seeds.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use zoometry_sim::World;
use zoometry_sim::story::Story;

/// Real ZooKeeper member code in simulated worlds; the same seed gives the same life.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  zoometry-sim many --count 1000\n  zoometry-sim run --seed 7 --world zab --story\n  zoometry-sim twice --seed 7"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Only worlds of this kind: store or zab
    #[arg(long, global = true)]
    world: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Live through one seed
    Run {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// Print every event
        #[arg(long)]
        story: bool,
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
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |world: &World| args.world.as_deref().is_none_or(|name| name == world.name());
    let worlds: Vec<World> = World::ALL.into_iter().filter(wanted).collect();
    if worlds.is_empty() {
        eprintln!("zoometry-sim: --world: expected store or zab");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for world in worlds {
        match args.command {
            Command::Run { seed, story } => {
                let story = if story { Story::aloud() } else { Story::default() };
                failed += u64::from(!lives(world, seed, story));
            }
            Command::Many { count, from } => {
                let started = Instant::now();
                let failures =
                    (from..from + count).filter(|seed| !lives(world, *seed, Story::default())).count();
                let seconds = started.elapsed().as_secs_f64();
                println!("{}: {count} seeds, {failures} failed, in {seconds:.1} s", world.name());
                failed += failures as u64;
            }
            Command::Twice { seed } => {
                let [first, second] = [0, 1].map(|_| world.live(seed, Story::default()));
                let equal = first.fingerprint() == second.fingerprint();
                println!(
                    "{}: {} lines, {}",
                    world.name(),
                    first.lines(),
                    if equal { "equal" } else { "DIFFERENT" }
                );
                failed += u64::from(!equal);
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the judges were content; otherwise they have said why on stderr.
fn lives(world: World, seed: u64, story: Story) -> bool {
    let lived = std::panic::catch_unwind(|| world.live(seed, story)).is_ok();
    if !lived {
        eprintln!("FAILED: zoometry-sim run --world {} --seed {seed} --story", world.name());
    }
    lived
}
