"""A small share of ``make trust``: every kind of stop, at moments that a seed draws."""

import pytest
from kills import Driver, run, table

COMMANDS = ["score", "train", "convert"]


@pytest.mark.slow
def test_no_stop_loses_or_changes_anything(model_folder, tmp_path):
    rows = run(Driver(tmp_path, model_folder, 0), 9, COMMANDS, 0, print)
    assert all(row.sound for row in rows.values()), table(rows) + "\n".join(
        fault for row in rows.values() for fault in row.faults
    )
