//! Every mistake on purpose is caught by the judges within its number of seeds. Needs the feature:
//! `cargo test -p zoometry-sim --features deliberate-bugs --test bite`.

#![cfg(feature = "deliberate-bugs")]

use zoometry_sim::bite::PROOFS;

/// So many tests share the proofs: they run beside each other.
const SHARES: usize = 4;

fn prove(share: usize) {
    for proof in PROOFS.iter().skip(share).step_by(SHARES) {
        let caught = proof.prove(1);
        let Some((seeds, objection)) = caught else {
            panic!("{} lives through {} seeds", proof.name, proof.seeds_max);
        };
        println!("{}: caught by seed {seeds}: {objection}", proof.name);
    }
}

#[test]
fn the_judges_bite_1() {
    prove(0);
}

#[test]
fn the_judges_bite_2() {
    prove(1);
}

#[test]
fn the_judges_bite_3() {
    prove(2);
}

#[test]
fn the_judges_bite_4() {
    prove(3);
}
