"""Every study by its name, and the folder that is all of it; light to import.

A folder has the files that its study needs, each with the same names in it:

    config.py    Config, what is asked (of a study of a model), and COMMANDS, the
                 options of its commands
    study.py     prepare, run, and what its arrays are (of a study of a model)
    command.py   run_command, what its command does (of any other study)
    claims.py    CLAIMS, what a finished run may be asked
    page.py      topic, what the page tells of a run; of any run: each asks whether it
                 is its own
    terminal.py  lines, what the terminal prints of a run of a model

Run, plan, receipt, page, claims and command line loop over the studies in this order.
A study's config and page load no JAX.
"""

import importlib
from typing import Any

STUDIES: dict[str, str] = {
    "scores": "jaxheads.studies.scores",
    "ablation": "jaxheads.studies.ablation",
    "token_loss": "jaxheads.studies.token_loss",
    "execution": "jaxheads.studies.function_vectors",
    "redundancy": "jaxheads.studies.redundancy",
    "attribution": "jaxheads.studies.attribution",
    "dynamics": "jaxheads.studies.dynamics",
    "train": "jaxheads.studies.train",
    "evidence": "jaxheads.studies.six_arguments",
    "compare_runs": "jaxheads.studies.compare_runs",
}
"""Folders by the names of studies."""


def load(name: str, file: str) -> Any:
    """A file of a study's folder; None: the study has none of this name."""
    path = f"{STUDIES[name]}.{file}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:  # the file is there, and what it needs is not
            raise
        return None


def files(file: str) -> dict[str, Any]:
    """A file of every study that has it, by the names of studies."""
    found = {name: load(name, file) for name in STUDIES}
    return {name: module for name, module in found.items() if module is not None}


def of_models() -> dict[str, Any]:
    """The configs of all studies of a model, as classes, by the names of studies."""
    configs = files("config")
    return {
        name: module.Config
        for name, module in configs.items()
        if hasattr(module, "Config")
    }


def commands() -> dict[str, type]:
    """The options of every study's commands, by the names of commands."""
    return {
        name: options
        for module in files("config").values()
        for name, options in module.COMMANDS.items()
    }


def owner(command: type) -> str | None:
    """The study that a command is of; None: it is of several, or of none."""
    for name, module in files("config").items():
        if command in module.COMMANDS.values():
            return name
    return None
