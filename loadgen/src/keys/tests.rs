//! The layout by hand, and the distributions by chi-square with fixed seeds.

use proptest::prelude::*;

use super::*;
use crate::spec::ValueSize;

fn space(znodes: u64, shape: Shape) -> KeySpace {
    KeySpace::new(&Data { root: "/r".into(), znodes, shape, value: ValueSize::Constant(0) })
}

#[test]
fn paths_by_hand() {
    let table = [
        (10_000, Shape::Flat, 42, "/r/k0042"),
        (1, Shape::Flat, 0, "/r/k0"),
        (10, Shape::Flat, 9, "/r/k9"),
        (11, Shape::Flat, 10, "/r/k10"),
        (10_000, Shape::Fanout(100), 42, "/r/d00/k42"),
        (10_000, Shape::Fanout(100), 9_999, "/r/d99/k99"),
        (10_001, Shape::Fanout(100), 10_000, "/r/d01/d00/k00"),
        (8, Shape::Fanout(2), 5, "/r/d1/d0/k1"),
        (50, Shape::Fanout(100), 49, "/r/k49"),
        (1_000, Shape::Depth(3), 123, "/r/d1/d2/k3"),
        (1_000, Shape::Depth(1), 123, "/r/k123"),
        (1, Shape::Depth(3), 0, "/r/d0/d0/k0"),
        (1_001, Shape::Depth(3), 1_000, "/r/d08/d02/k10"), // base 11
    ];
    for (znodes, shape, key, path) in table {
        assert_eq!(space(znodes, shape).path(key), path, "{znodes} {shape:?}");
    }
}

#[test]
fn inner_znodes_come_parents_first() {
    let inner: Vec<String> = space(5, Shape::Fanout(2)).inner_paths().collect();
    assert_eq!(inner, ["/r/d0", "/r/d1", "/r/d0/d0", "/r/d0/d1", "/r/d1/d0"]);
    assert_eq!(space(5, Shape::Flat).inner_paths().count(), 0);
}

#[test]
fn children_are_asked_of_the_parent() {
    let mut parent = String::new();
    space(10_000, Shape::Fanout(100)).push_parent(4_321, &mut parent);
    assert_eq!(parent, "/r/d43");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_key_has_its_own_path_below_known_parents(
        znodes in 1u64..3000,
        shape in prop_oneof![
            Just(Shape::Flat), (2u32..200).prop_map(Shape::Fanout), (1u32..13).prop_map(Shape::Depth)
        ],
    ) {
        let space = space(znodes, shape);
        let mut known: std::collections::BTreeSet<String> = ["/r".to_string()].into();
        for inner in space.inner_paths() {
            prop_assert!(known.contains(zoometry_wire::path::parent(&inner)), "{inner} before its parent");
            prop_assert!(known.insert(inner));
        }
        let mut children = std::collections::BTreeMap::<String, u64>::new();
        for key in 0..znodes {
            let path = space.path(key);
            prop_assert_eq!(path.len(), space.path_bytes());
            prop_assert!(zoometry_wire::path::validate(&path).is_ok());
            let mut parent = String::new();
            space.push_parent(key, &mut parent);
            prop_assert_eq!(zoometry_wire::path::parent(&path), &parent);
            prop_assert!(known.contains(&parent), "{} has no parent", path);
            prop_assert!(known.insert(path));
            *children.entry(parent).or_default() += 1;
        }
        prop_assert!(children.values().all(|&count| count <= space.widest()));
    }
}

/// Pearson's statistic of observed counts against probabilities.
fn chi_square(observed: &[u64], probabilities: &[f64]) -> f64 {
    let total: u64 = observed.iter().sum();
    let term = |(&count, p): (&u64, &f64)| {
        let expected = p * total as f64;
        assert!(expected >= 5.0, "a bin with {expected} expected draws");
        (count as f64 - expected).powi(2) / expected
    };
    observed.iter().zip(probabilities).map(term).sum()
}

/// The statistic's 99.9% point for many degrees of freedom (Wilson and Hilferty's approximation).
fn limit(degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + 3.09 * spread.sqrt()).powi(3)
}

fn histogram(choice: KeyChoice, keys: u64, draws: u64) -> Vec<u64> {
    let chooser = KeyChooser::new(choice, keys);
    let mut counts = vec![0; keys as usize];
    for index in 0..draws {
        counts[chooser.choose(index, &mut Draw::at(20_261_122, index)) as usize] += 1;
    }
    counts
}

fn assert_distribution(choice: KeyChoice, probabilities: &[f64]) {
    let observed = histogram(choice, probabilities.len() as u64, 400_000);
    let statistic = chi_square(&observed, probabilities);
    let limit = limit(probabilities.len() as f64 - 1.0);
    assert!(statistic < limit, "{choice:?}: chi-square {statistic}, limit {limit}");
}

fn zipf_probabilities(keys: u64, exponent: f64) -> Vec<f64> {
    let masses: Vec<f64> = (1..=keys).map(|rank| (rank as f64).powf(-exponent)).collect();
    let sum: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / sum).collect()
}

#[test]
fn uniform_is_uniform() {
    assert_distribution(KeyChoice::Uniform, &[0.01; 100]);
}

#[test]
fn zipf_is_zipf_below_at_and_above_one() {
    for (keys, exponent) in [
        (1000, 0.5),
        (1000, 0.99),
        (1000, 1.0),
        (1000, 1.000_000_01),
        (1000, 1.0011),
        (1000, 0.9991),
        (200, 1.5),
        (20, 3.0),
        (2, 0.8),
    ] {
        assert_distribution(KeyChoice::Zipf(exponent), &zipf_probabilities(keys, exponent));
    }
    assert_eq!(histogram(KeyChoice::Zipf(0.99), 1, 100), [100]);
}

#[test]
fn the_test_can_tell_an_exponent_from_its_neighbour() {
    let observed = histogram(KeyChoice::Zipf(0.99), 1000, 400_000);
    assert!(chi_square(&observed, &zipf_probabilities(1000, 0.95)) > limit(999.0));
}

#[test]
fn a_hot_set_gets_its_share() {
    let mut probabilities = vec![0.9 / 10.0; 10];
    probabilities.extend([0.1 / 90.0; 90]);
    assert_distribution(KeyChoice::Hot { keys: 10, share: 0.9 }, &probabilities);
}

#[test]
fn sequential_goes_round() {
    let chooser = KeyChooser::new(KeyChoice::Sequential, 3);
    let keys: Vec<u64> = (0..7).map(|index| chooser.choose(index, &mut Draw::at(1, index))).collect();
    assert_eq!(keys, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn a_hundred_million_keys_need_no_table() {
    let zipf = Zipf::new(100_000_000, 0.99);
    let ranks: Vec<u64> = (0..100_000).map(|index| zipf.choose(&mut Draw::at(5, index))).collect();
    assert!(ranks.iter().all(|&rank| rank < 100_000_000));
    // The head's share follows from the harmonic-like sum: about 1/19.9 for this size and exponent.
    let sum: f64 = (1..=1_000_000).map(|rank| f64::from(rank).powf(-0.99)).sum::<f64>()
        + (100_000_000f64.powf(0.01) - 1_000_000f64.powf(0.01)) / 0.01;
    let expected = 100_000.0 / sum;
    let head = ranks.iter().filter(|&&rank| rank == 0).count() as f64;
    assert!((head - expected).abs() < 5.0 * expected.sqrt(), "{head} of {expected} expected");
}
