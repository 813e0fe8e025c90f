//! A few hundred seeds of every world, and those that have failed once. More:
//! `cargo run --release -p zoometry-sim -- many --count 10000`.

use zoometry_sim::story::Story;
use zoometry_sim::{World, judged};

/// Seeds that have failed once: `world seed what was wrong; fixed by …`.
const FAILED_ONCE: &str = include_str!("../seeds.txt");

fn many(world: World, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(objection) = judged(world, seed, Story::silent()) {
            panic!("{objection}\ncargo run -p zoometry-sim -- run --world {} --seed {seed}", world.name());
        }
    }
}

#[test]
fn store_worlds() {
    many(World::Store, 1..=300);
}

#[test]
fn zab_worlds() {
    many(World::Zab, 1..=300);
}

#[test]
fn what_is_written_after_a_loss_is_kept() {
    (1..=30).for_each(zoometry_sim::zab::four_lost_their_data);
}

#[test]
fn whole_worlds() {
    many(World::Whole, 1..=150);
}

#[test]
fn more_whole_worlds() {
    many(World::Whole, 151..=300);
}

#[test]
fn seeds_that_have_failed_once() {
    let told = FAILED_ONCE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in told {
        let mut words = line.split_whitespace();
        let world = World::ALL.into_iter().find(|world| Some(world.name()) == words.clone().next());
        let world = world.unwrap_or_else(|| panic!("no such world: {line}"));
        let seed = words.nth(1).and_then(|seed| seed.parse().ok());
        many(world, std::iter::once(seed.unwrap_or_else(|| panic!("no seed: {line}"))));
    }
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    for world in World::ALL {
        let [first, second] = [0, 1].map(|_| world.live(42, Story::default()));
        assert!(first.lines() > 100);
        assert_eq!(first.fingerprint(), second.fingerprint(), "{}", world.name());
    }
}
