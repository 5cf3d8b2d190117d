"""What did a run find? Its scores and ablations as tables, and as a CSV file.

    jaxheads study --out runs/demo
    python examples/read_a_run.py runs/demo heads.csv

A run is `result.json` and `arrays.npz`; to read it takes numpy, no model and no device.
Each set of heads is compared with the clean model on the same prompts, so the accuracy
that is lost has a paired interval; random draws of a kind count together.

Paper: Yin & Steinhardt 2025 (arXiv 2502.14010), sections 3 and 4.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich import print
from rich.markup import escape
from rich.table import Table

from jaxheads import heads, runs
from jaxheads.statistics import units

run = runs.load(sys.argv[1])
scores = {name: run.arrays[f"score/{name}"] for name in run.result["scores"]}  # [L, H]
shape = next(iter(scores.values())).shape

table = Table("score", "leading heads", "chance", "ceiling", "unit")
for name, told in run.result["scores"].items():
    first = [divmod(head, shape[1]) for head in heads.order(scores[name])[:3]]
    leading = "\n".join(f"{l}.{h} {scores[name][l, h]:.3f}" for l, h in first)
    limits = f"{told['chance']:.3f}", f"{told['ceiling']:.3f}"
    table.add_row(name, leading, *limits, told["unit"])
print(table)

for path in map(Path, sys.argv[2:]):  # all heads, a line each
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["layer", "head", *scores])
        out.writerows(
            [*at, *(each[at] for each in scores.values())] for at in np.ndindex(shape)
        )

if "ablation" in run.result:
    right = run.arrays["ablation/first_token"]  # [N, tasks, prompts], 0 or 1
    queries = run.arrays.get("ablation/queries")  # [tasks, prompts], who asks the same
    sets, draws = run.result["ablation"]["sets"], defaultdict(list)
    for row, one in enumerate(sets):
        draws[one["name"].removesuffix(f" #{one['draw']}"), one["count"]].append(row)
    clean = right[[one["mode"] == "clean" for one in sets]].mean(axis=0)
    table = Table("replaced", "heads", "draws", "accuracy lost [95 %]")
    for (name, count), rows in draws.items():
        lost = clean - right[rows].mean(axis=0)
        found = units.estimate(lost, queries, bounds=units.DIFFERENCES)
        told = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found.interval())
        table.add_row(escape(name), str(count), str(len(rows)), told)
    print(table)
