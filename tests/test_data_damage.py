"""Whatever one thing breaks in a drawn dataset: it reads as before, or an error or a skip names it, or no list could
tell and its fingerprint changes. `python tests/damage.py 500` tries more of them."""

from __future__ import annotations

from pathlib import Path

import damage
import pytest
from drawn_layouts import DRAWN

from benchmark.data.datasets import DATASETS


def test_every_layout_is_drawn() -> None:
    assert set(DRAWN) == set(DATASETS)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_no_damage_goes_unseen(tmp_path: Path, name: str) -> None:
    for seed in range(12):
        broken, outcome, words = damage.outcome(name, seed, tmp_path / str(seed))
        assert outcome != "silent", f"seed {seed}, {broken}: {words}"
