"""What ``jaxheads train`` does."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from jaxheads.devices import make_seed_mesh
from jaxheads.runs import Run
from jaxheads.training.choices import GENERATORS, choose_data, choose_model, read_text
from jaxheads.training.evidence import make_evidence
from jaxheads.training.loop import check_fit, train
from jaxheads.training.terminal import TrainingBar, print_training

if TYPE_CHECKING:
    from jaxheads.commands import Train


def run_command(command: "Train", console: Console, output: Console) -> Run:
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
    out = command.out or _default_folder(command)
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


def _default_folder(command: "Train") -> Path:
    """Such as runs/toy-hapax-train."""
    words = (Path(command.model.model).stem, command.training.objective, "train")
    return Path("runs") / re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
