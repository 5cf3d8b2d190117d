"""The answers on the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads.runs import Run
from jaxheads.statistics.seeds import NOTE

_COLOURS = {
    "holds": "green",
    "does not hold": "red",
    "too small to matter": "red",
    "undecided": "yellow",
}


def print_arguments(run: Run, console: Console) -> None:
    """One row an argument, and one a run."""
    said = run.result["evidence"]
    table = Table(title=f"six arguments, {len(said['runs'])} training runs")
    table.add_column("argument")
    table.add_column("answer", no_wrap=True)
    table.add_column("evidence", overflow="fold")
    for one in said["arguments"]:
        colour = _COLOURS.get(one["answer"], "")
        answer = f"[{colour}]{one['answer']}[/]" if colour else one["answer"]
        name = f"{one['argument']} {one['name']}"
        table.add_row(name, answer, one["evidence"])
    console.print(table)
    for text in (NOTE, *said["left_out"]):
        console.print(Text(f"note    {text}"), soft_wrap=True)
    table = Table(title="training runs")
    table.add_column("run")
    table.add_column("architecture")
    for name in ("seeds", "heads form in", "at step", "ICL score", "top prefix score"):
        table.add_column(name, justify="right")
    rows = zip(said["runs"], said["continuity"], said["co_occurrence"], strict=True)
    for about, row, dated in rows:
        step = dated["changes"]["prefix_matching"]["step"]
        means = [row[name] for name in ("icl_score", "top_prefix")]
        table.add_row(
            about["name"],
            f"{about['variant']}, layers: {about['layers']}, width: {about['width']}",
            str(len(about["seeds"])),
            str(row["found"]),
            "" if step is None else f"{step:,.0f}",
            *("" if mean is None else f"{mean['mean']:.3f}" for mean in means),
        )
    console.print(table)
