"""Broken files of every kind: a seeded share of what ``make trust-fuzz`` reads."""

import pytest
from fuzz import OUTCOMES, fuzz, table
from fuzz_samples import READERS


@pytest.mark.slow
def test_a_broken_file_is_refused_or_read_and_nothing_else_happens():
    found = fuzz(300, seed=13, seconds=240)
    assert not any(one.wrong for one in found.values()), table(found)
    for outcome in OUTCOMES[:2]:  # both are reached, or the fuzz says nothing
        assert sum(one.counts[outcome] for one in found.values())
    assert found.keys() == READERS.keys()
