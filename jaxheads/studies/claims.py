"""The papers' claims, one by one: does each hold on a run, and on what evidence?

Question: which of the statements about induction and function-vector heads does this
run support, which does it contradict, and which does it leave open? The rules stand in
``claims.rules`` and beside each measure, and do not know the data.
Source: Yin & Steinhardt 2025; Todd et al. 2024; Crosbie & Shutova 2024 for controls.
"""

from typing import Any

from jaxheads.runs import Run
from jaxheads.runs.finite import plain
from jaxheads.statistics.claims import Claim, Definition, Rules, judge
from jaxheads.studies import registry
from jaxheads.studies.scores.numbers import with_one_induction


def definitions() -> list[Definition]:
    """The claims that one run can be asked about; ``across_runs`` has those of several.

    Those on what heads score come after those on what heads do.
    """
    files = registry.files("claims").values()
    made = [one for file in files for one in getattr(file, "CLAIMS", ())]
    return sorted(made, key=lambda one: one.family == "head scores")


def of_run(run: Run, rules: Rules | None = None) -> list[Claim]:
    """Judge every claim on a run, those that it does not measure among them.

    Args:
        run: of any study.
        rules: None: the usual ones.
    """
    return judge(definitions(), with_one_induction(run), rules or Rules())


def to_rows(run: Run, rules: Rules | None = None) -> list[dict[str, Any]]:
    """Give the claims as rows for a table or JSON: None for what is not known."""
    return [plain(claim) for claim in of_run(run, rules)]
