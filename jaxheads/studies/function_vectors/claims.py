"""Claims about function vectors that are added to prompts which do not show the task.

Each function measures one claim on a run; its docstring is the rule of its judgement.
"""

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.claims import Definition, Measured, Rules, Untested
from jaxheads.statistics.paired_tests import sign_flip_p
from jaxheads.statistics.units import DIFFERENCES, estimate
from jaxheads.studies.ablation import first_tokens

_OVER = "queries of these tasks"
_NAMES = {"zero_shot": "zero-shot", "shuffled": "shuffled-label"}


def vector_raises_zero_shot(run: Run, rules: Rules) -> Measured:
    """Zero-shot accuracy with the task's function vector minus without.

    Added a third of the way up, in the first-token accuracy of all prompts. Sign-flip
    test over queries; a tenth of the clean accuracy is the smallest gain of interest.
    """
    return _gain(run, "zero_shot", rules)


def vector_raises_shuffled(run: Run, rules: Rules) -> Measured:
    """Accuracy after shuffled labels, with the task's function vector minus without.

    Added a third of the way up, in the first-token accuracy of all prompts. Sign-flip
    test over queries; a tenth of the clean accuracy is the smallest gain of interest.
    """
    return _gain(run, "shuffled", rules)


def random_vectors_do_not(run: Run, rules: Rules) -> Measured:
    """Zero-shot accuracy without a vector minus with vectors of as many random heads.

    A claim of no gain: the one-sided test is against a gain of a tenth of the clean
    accuracy, over queries and random sets, and the claim does not hold where the 95 %
    interval lies beyond that.
    """
    plain, random = _right(run, "zero_shot"), _right(run, "zero_shot_random")
    margin = rules.smallest * _clean(run)
    difference = plain - random.mean(0)
    found = estimate(difference, _queries(run), bounds=DIFFERENCES)
    if len(random) > 1:
        spread = float(random.mean((1, 2)).var(ddof=1))
        found = found.with_source(spread / len(random), len(random) - 1)
    before, after = words.aligned(plain.mean(), random.mean())
    return Measured(
        *found.interval(),
        p=found.p_above(-margin),
        over=f"{_OVER}, and random draws",
        p_over=f"{_OVER}, and random draws",
        evidence=f"Vectors of random heads ({words.plural(len(random), 'draw')}) take "
        f"zero-shot accuracy from {before} to {after}; no gain means less than "
        f"{words.number(margin)}.",
        unit="accuracy",
        smallest=margin,
        null=-margin,
    )


def _gain(run: Run, kind: str, rules: Rules) -> Measured:
    plain, steered = _right(run, kind), _right(run, f"{kind}_vector")
    clean = _clean(run)
    difference = steered - plain
    queries = _queries(run)
    before, after, whole = words.aligned(plain.mean(), steered.mean(), clean)
    tasks = int(np.sum(difference.mean(1) > 0))
    return Measured(
        *estimate(difference, queries, bounds=DIFFERENCES).interval(),
        p=sign_flip_p(difference, rules.seed, queries=queries),
        over=_OVER,
        p_over=_OVER,
        evidence=f"At layer {run.result['execution']['layer']} the function vector "
        f"takes {_NAMES[kind]} accuracy from {before} to {after}, up in {tasks} of "
        f"{words.plural(len(difference), 'task')} (clean {whole}).",
        unit="accuracy",
        smallest=rules.smallest * clean,
    )


def _right(run: Run, name: str) -> np.ndarray:
    """Answers [U, B]; of random vectors [Y, U, B]; at a third of the layers."""
    values = run.arrays.get(f"execution/right/{name}")
    if values is None or "execution" not in run.result:
        raise Untested("not measured", "The run adds no function vectors to prompts.")
    values = _of_telling(run, np.asarray(values, np.float64))
    if name.endswith(("_vector", "_random")):
        layers = np.asarray(run.arrays["execution/layers"])
        found = np.flatnonzero(layers == run.result["execution"]["layer"])
        at = int(found[0]) if found.size else 0
        values = values[..., at, :]
    if name.endswith("_random"):
        values = np.moveaxis(values, 1, 0)
    if not values.size:
        raise Untested("not measured", "The run has no such vectors or prompts.")
    return values


def _queries(run: Run) -> np.ndarray | None:
    queries = run.arrays.get("execution/queries")
    return None if queries is None else _of_telling(run, queries)


def _of_telling(run: Run, values: np.ndarray) -> np.ndarray:
    """Of [U, ...], the tasks whose answers a first token tells apart."""
    tasks = run.result["execution"].get("tasks")
    return first_tokens.of_telling(run, values, tasks, 0)


def _clean(run: Run) -> float:
    clean = float(_right(run, "clean").mean())
    if clean == 0:
        raise Untested(
            "undecided", "The model answers no prompt of these tasks: nothing to raise."
        )
    return clean


_YIN = "Yin & Steinhardt 2025"
_TODD = "Todd et al. 2024"
CLAIMS = (
    Definition(
        "vector_raises_zero_shot",
        "A task's function vector makes the model do the task without demonstrations",
        f"{_TODD}, section 3",
        "function vectors",
        "function vectors added to prompts",
        vector_raises_zero_shot,
    ),
    Definition(
        "vector_raises_shuffled",
        "A task's function vector makes up for shuffled labels",
        f"{_TODD}, section 3; {_YIN}, appendix A.6",
        "function vectors",
        "function vectors added to prompts",
        vector_raises_shuffled,
    ),
    Definition(
        "random_vectors_do_not",
        "Vectors of random heads do not make the model do the task without "
        "demonstrations",
        f"{_TODD}, section 3",
        "function vectors",
        "function vectors of random heads added to prompts",
        random_vectors_do_not,
    ),
)
"""What a run may be asked of this study."""
