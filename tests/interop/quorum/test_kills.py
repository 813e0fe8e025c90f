"""Rounds of kill -9 under load: of one member at random, then of all at once. Nothing acknowledged may be missing.

    pytest tests/interop/quorum/test_kills.py --rounds 50 --seed 7
"""

import random
import time

import pytest

from load import Load

LAYOUTS = {
    "ours": {1: "ours", 2: "ours", 3: "ours"},
    "mixed": {1: "ours", 2: "ours", 3: "apache"},
}


@pytest.mark.takes_rounds
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kill_one_then_all(new_ensemble, ours, seed, request, layout):
    rounds = request.config.getoption("--rounds")
    pick = random.Random(seed)
    kinds = {number: ours if kind == "ours" else kind for number, kind in LAYOUTS[layout].items()}
    ensemble = new_ensemble(kinds, settings={"snapCount": 1000}).start()
    with Load(ensemble, writers=6, seed=seed) as load:
        for number in range(1, rounds + 1):
            one = pick.choice(list(ensemble))
            was = one.mode()
            time.sleep(pick.uniform(0, 1))
            one.kill()
            # Back at once, or when the others have gone on without it.
            gap = load.progress() if pick.random() < 0.7 else 0.0
            one.start()
            ensemble.wait_all()
            load.progress()
            time.sleep(pick.uniform(0, 1))
            ensemble.kill_all()
            ensemble.start()
            back = load.progress()
            print(f"round {number}: {one} ({was}) killed, {gap:.1f} s; then all, {back:.1f} s", flush=True)
        print(load.verify())
