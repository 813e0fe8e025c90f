//! A few hundred seeds of every world. More: `cargo run --release -p zoometry-sim -- many --count 10000`.

use zoometry_sim::World;
use zoometry_sim::story::Story;

fn many(world: World, count: u64) {
    for seed in 1..=count {
        let lived = std::panic::catch_unwind(|| world.live(seed, Story::default()));
        assert!(
            lived.is_ok(),
            "cargo run -p zoometry-sim -- run --world {} --seed {seed} --story",
            world.name()
        );
    }
}

#[test]
fn store_worlds() {
    many(World::Store, 300);
}

#[test]
fn zab_worlds() {
    many(World::Zab, 150);
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    for world in World::ALL {
        let [first, second] = [0, 1].map(|_| world.live(42, Story::default()));
        assert!(first.lines() > 100);
        assert_eq!(first.fingerprint(), second.fingerprint(), "{}", world.name());
    }
}
