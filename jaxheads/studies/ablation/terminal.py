"""Few-shot accuracy under every set in the terminal."""

from collections.abc import Iterator

from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.tables import every_kind


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    kinds = {"few-shot": outcomes.accuracy(run), "zero-shot": outcomes.zero_shot(run)}
    for kind, measured in kinds.items():
        if measured:
            title = f"{kind} accuracy, heads at the last position := "
            title += f"{run.result['ablation']['value']} "
            title += f"(95 % intervals over {measured[0].over})"
            yield every_kind(title, measured).without("value")
