"""Studies of a model in one run folder: plan, run, receipt."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxheads import runs
from jaxheads.engine import memory, plan
from jaxheads.engine.progress import Progress, bars, duration
from jaxheads.report import tables
from jaxheads.runs import processes
from jaxheads.studies import registry
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.doctor import examine_study
from jaxheads.studies.inputs import STUDY, Prepared, prepare, with_scores
from jaxheads.studies.job import Given, Job
from jaxheads.studies.receipt import describe_arrays, identity, receipt
from jaxheads.weights.model import Model


def stated_config(
    config: StudyConfig,
    parts: tuple[str, ...],
    ranking: runs.Run | None = None,
    prepared: Prepared | None = None,
) -> dict[str, Any]:
    """The config as the run's folder states it: what decides the numbers of its parts.

    Options of studies that do not run are left out. A file of sets stands there as its
    sets, not by its path, and scores of another run by its fingerprint.

    Args:
        config: of the run.
        parts: that run.
        ranking: a run whose scores are taken; None: they are computed if need be.
        prepared: the inputs, which know what files hold; None: they are not there.
    """
    stated = config.to_dict()
    for name in set(config.studies) - {*parts, *with_scores(parts, ranking)}:
        del stated[name]
    for name, inputs in (prepared.inputs if prepared else {}).items():
        if name in stated and hasattr(inputs, "stated"):
            stated[name] |= inputs.stated()
    return stated | {"ranking": ranking and ranking.result["fingerprint"]}


def run_study(
    model: Model,
    config: StudyConfig,
    out: str | Path,
    *,
    parts: tuple[str, ...] = STUDY,
    ranking: runs.Run | None = None,
    memory_gb: float | None = None,
    calibrate: bool = False,
    progress: Progress | None = None,
    prepared: Prepared | None = None,
) -> runs.Run:
    """Run studies of a model and write the run folder.

    A folder that holds the same run unfinished is gone on with; a finished one is
    read. Killed at any moment, the same call ends with the same arrays.

    Args:
        model: to study.
        config: everything else that decides the numbers.
        out: the run's folder.
        parts: names of studies of a model, see ``registry``. Those that need scores get
            them computed here or from ``ranking``.
        ranking: a finished run of the same model with scores.
        memory_gb: for activations, besides the params, on each device; None: a share of
            what is free (see ``jaxheads.engine.memory``).
        calibrate: time short runs of the studies' own programs first, so that the plan
            says how long it will take.
        progress: told what happens.
        prepared: the inputs of these parts, made of token ids already; None: they are
            made of the config's tasks and texts, by the model's tokenizer.

    Returns:
        The finished run.

    Raises:
        UserError: inputs that do not fit, a folder of another config, less memory than
            the smallest step needs, a check of ``doctor`` that does not hold, or a
            value that is not finite.
    """
    budget = memory.budget_bytes(memory_gb, model.params)
    progress = progress or Progress()
    prepared = prepared or prepare(model, config, parts, ranking)
    # Sets that cannot be made are refused here.
    costs = cost(prepared, model.config, config)
    planned = {}
    if not processes.is_file(Path(out) / "result.json"):
        planned = fitted(prepared, model, config, costs, budget)
    with processes.open_folder(
        out,
        "+".join(parts),
        stated_config(config, parts, ranking, prepared),
        identity(model, prepared.token_arrays(), prepared.bos),
    ) as folder:
        if folder.finished:
            return processes.load(folder.path)
        result: dict[str, Any] = receipt(model, prepared.bos)
        checks = examine_study(model, prepared.token_arrays(), prepared.bos)
        if calibrate:
            planned = plan.calibrated(planned, plan.matmul_rate())
        progress.planned(planned)
        rows = [{"part": name} | part.receipt() for name, part in planned.items()]
        result |= {"plan": {"rows": rows}, "checks": checks}
        result |= {"task_info": prepared.tasks, "wall_s": {}, "scores": {}}
        arrays = prepared.token_arrays()
        if ranking:
            _take_scores(ranking, result, arrays)
        job = Job(
            model.params,
            model.config,
            model.tokenizer,  # without one, inputs were made of token ids
            Given.of_arrays(arrays, result["scores"]),
            folder,
            budget,
            progress.advance,
        )
        for name, inputs in prepared.inputs.items():
            progress.started(name.replace("_", " "))
            found = registry.load(name, "study").run(inputs, job)
            arrays |= found.arrays()
            result |= found.describe()
            result["wall_s"][name] = found.seconds
            given = Given.of_arrays(arrays, result["scores"])
            job = dataclasses.replace(job, given=given)
        result["arrays"] = describe_arrays(arrays, result["scores"])
        return folder.finish(result, arrays)


def _take_scores(
    ranking: runs.Run, result: dict[str, Any], arrays: runs.Arrays
) -> None:
    """Put the scores of another run into this one, and say whose they are."""
    taken = [name for name in ranking.arrays if name.startswith(("score/", "fv/"))]
    arrays |= {name: ranking.arrays[name] for name in taken}
    result["scores"] = ranking.result["scores"]
    result["scoring_tasks"] = ranking.result["scoring_tasks"]
    result["task_info"] = ranking.result["task_info"] | result["task_info"]
    result["ranking"] = ranking.result["fingerprint"]


def stand_in(prepared: Prepared, model_config, config: StudyConfig) -> Given:
    """What scores will give, before they are there: heads that stand for the top."""
    named = [config.studies[name].ranked_by().values() for name in prepared.inputs]
    names = [*config.score_names, *(n for each in named for some in each for n in some)]
    return Given.stand_in(model_config, tuple(dict.fromkeys(names)))


def cost(prepared: Prepared, model_config, config: StudyConfig) -> dict[str, plan.Cost]:
    """What each study will cost, from shapes alone."""
    given = stand_in(prepared, model_config, config)
    return {
        name: inputs.cost(model_config, given)
        for name, inputs in prepared.inputs.items()
    }


def fitted(
    prepared: Prepared,
    model: Model,
    config: StudyConfig,
    costs: dict[str, plan.Cost],
    budget: int,
) -> dict[str, plan.Part]:
    """Each study's programs at the chunks that a device's memory allows.

    Args:
        prepared: inputs of the run.
        model: to study.
        config: of the run.
        costs: of each study.
        budget: bytes on a device, see ``memory.budget_bytes``.

    Raises:
        UserError: the smallest step of a study does not fit.
    """
    given = stand_in(prepared, model.config, config)
    planned = {}
    for name, inputs in prepared.inputs.items():
        fits = inputs.fits(model.params, model.config, given, budget)
        if fits:
            advice = registry.load(name, "study").ADVICE
            memory.refuse_what_cannot_fit(fits, budget, advice)
        planned[name] = plan.Part(costs[name], tuple(fits))
    return planned


class StudyBars(contextlib.AbstractContextManager):
    """Shows a study's plan, then a bar for each part.

    Attributes:
        progress: to hand to ``run_study``.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bars = bars(console, 10)
        self._tasks: dict[str, Any] = {}
        self._current = ""
        self.progress = Progress(self._planned, self._started, self._advance)

    def __exit__(self, *error) -> None:
        self._bars.stop()

    def _planned(self, parts: dict[str, plan.Part]) -> None:
        calibrated = [part.seconds for part in parts.values() if part.seconds]
        title = "plan"
        if calibrated:
            title += f": {duration(sum(calibrated))}, by short runs of its programs"
        rows = [{"part": name} | part.receipt() for name, part in parts.items()]
        table = tables.plan(rows, {}, title).without("wall time")
        self._console.print(tables.printed(table))
        for name, part in parts.items():
            name = name.replace("_", " ")
            self._tasks[name] = self._bars.add_task(
                name, total=part.cost.flops, start=False
            )
        self._bars.start()

    def _started(self, part: str) -> None:
        self._finish()
        self._current = part
        self._bars.start_task(self._tasks[part])

    def _advance(self, flops: float) -> None:
        self._bars.advance(self._tasks[self._current], flops)

    def _finish(self) -> None:
        if self._current:
            task = self._tasks[self._current]
            self._bars.update(task, completed=self._bars.tasks[task].total)
