"""What ``jaxheads train`` does."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxheads.engine.devices import make_seed_mesh
from jaxheads.engine.progress import bars
from jaxheads.report.tables import Table, printed
from jaxheads.runs import Run, default_folder
from jaxheads.studies.train.config import Train
from jaxheads.training.choices import GENERATORS, choose_data, choose_model, read_text
from jaxheads.training.loop import check_fit, train
from jaxheads.training.measures import make_evidence

WIDTH = 120
"""Of what is printed where no terminal says."""


class TrainingBar(contextlib.AbstractContextManager):
    """Shows the step, the mean loss of the seeds, tokens a second, and what is left.

    Args:
        console: to show it on.
        steps: of the run.
        tokens: targets of all seeds in a step.
    """

    def __init__(self, console: Console, steps: int, tokens: int):
        self._bar = bars(console, 56)
        self._task = self._bar.add_task("compiling", total=steps)
        self._tokens, self._steps = tokens, steps
        self._before: tuple[int, float] | None = None
        self._bar.start()

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def report(self, step: int, row: dict[str, Any]) -> None:
        """What ``train`` calls after some steps."""
        now, loss = time.monotonic(), sum(row["loss"]) / len(row["loss"])
        told = f"step {step:,} of {self._steps:,}, loss {loss:.3f}"
        if self._before is not None:
            rate = (step - self._before[0]) * self._tokens / (now - self._before[1])
            told += f", {rate:,.0f} tokens/s"
        self._before = (step, now)
        self._bar.update(self._task, completed=step, description=told)


def print_training(run: Run, console: Console) -> None:
    """The last losses of every seed, and where the models are."""
    told, arrays = run.result["train"], run.arrays
    seconds = run.result["wall_s"]["train"]
    tokens = told["tokens_a_seed"] * len(told["seeds"])
    rows = []
    for index, seed in enumerate(told["seeds"]):
        loss, of_all, dropped = (
            np.mean(arrays[f"train/{name}"][-50:, index])
            for name in ("loss", "all_loss", "dropped")
        )
        held_out = arrays.get("evaluation/all_loss")
        rows.append(
            [
                told["checkpoints"][str(seed)][-1],
                str(seed),
                f"{loss:.4f}",
                f"{of_all:.4f}",
                f"{dropped:.1%}",
                "" if held_out is None else f"{held_out[-1, index]:.4f}",
            ]
        )
    title = f"{run.result['config']['objective']}: {tokens:,} tokens, "
    title += f"{told['num_params']:,} params a model, {tokens / seconds:,.0f} tokens/s"
    columns = ["last model", "seed", "loss, last 50 steps", "of all targets", "dropped"]
    console.print(printed(Table(title, [*columns, "held-out loss"], rows)))


def run_command(command: Train, console: Console, output: Console) -> Run:
    """Train as the options say, and print the end.

    Args:
        command: the options.
        console: of progress.
        output: of the result.
    """
    config = command.training
    config.check()  # a mistake in it is told before data are read
    command.evidence.check()
    mesh = make_seed_mesh(command.mesh, config.seeds)  # before anything is computed
    name = Path(command.model.model).stem
    out = command.out or default_folder(name, command.training.objective, "train")
    if command.data.data in GENERATORS:
        data = choose_data(command.data)
    else:
        # Beside the run, not in it: other runs may read the same tokens.
        with console.status("reading text"):
            data = read_text(command.data, out.with_name(f"{out.name}-tokens"))
    model_config = choose_model(command.model, data.source)
    check_fit(config, model_config, data.source, mesh)
    evidence = None
    if command.evidence.evidence and config.eval_every:
        evidence = make_evidence(
            command.evidence, model_config, data.source, data.held_out, data.tokenizer
        )
    tokens = config.seeds * config.batch_size * data.source.sequence_length
    with TrainingBar(console, config.steps, tokens) as bar:
        run = train(
            config,
            model_config,
            data.source,
            out,
            held_out=data.held_out,
            evidence=evidence,
            mesh=mesh,
            report=bar.report,
            tokenizer=data.tokenizer,
        )
    print_training(run, output)
    return run
