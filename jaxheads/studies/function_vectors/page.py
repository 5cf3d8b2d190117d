"""Function vectors at work: sections, sentences and tables of the page."""

from collections.abc import Sequence

import numpy as np

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation import first_tokens
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.claims_page import quotes
from jaxheads.studies.function_vectors import figures as drawn, findings as told
from jaxheads.studies.function_vectors.findings import KINDS, Executed


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of function vectors at work."""
    return Topic(sections(run), verdict(run, found, judged), say(run, judged))


def sections(run: Run) -> list[Section]:
    """Make the sections on what vectors do, and on what they say."""
    found = told.of(run)
    return [_at_work(found), _read_outs(found)] if found else []


_CLAIMS = ("vector_raises_zero_shot", "vector_raises_shuffled", "random_vectors_do_not")


def verdict(run: Run, compared: Findings, judged: Sequence[Claim]) -> str | None:
    """Quote the verdicts where the run holds no comparison of rankings."""
    if told.of(run) is None or compared.comparisons:
        return None
    return quotes(judged, *_CLAIMS)


def say(run: Run, judged: Sequence[Claim]) -> list[Statement]:
    """Write the statements for the head of the page."""
    found = told.of(run)
    if found is None:
        return []
    text = " ".join(told.reading(found, kind) for kind in KINDS)
    text = f"{text} {quotes(judged, *_CLAIMS)}".rstrip()
    return [Statement("Function vectors at work", text)]


def _at_work(found: Executed) -> Section:
    part = found.part
    heads = words.plural(part["count"], "head")
    whose = (
        f"on {words.plural(part['mean_prompts'], 'clean prompt')} of the task itself"
        if part["mean"] == "task"
        else "on clean prompts of the scoring tasks, the same for every task"
    )
    text = (
        f"A vector is the sum of what the top {heads} by "
        f"{words.short(part['ranking_by'])} score add to the residual stream on "
        f"average at the last position, {whose}. It is added to the stream "
        f"{told.PLACES[part['place']]}, at the last position of "
        f"{words.plural(part['prompts'], 'prompt')} in each of "
        f"{words.plural(len(part['tasks']), 'task')}; what counts is whether the "
        f"likeliest first token is right. {words.sentence(part['items'])}. The papers "
        f"add it at a third of the depth, layer {part['layer']}; the chosen layer is, "
        "for each task, the one where the other tasks' right tokens are likeliest, so "
        "that it does not flatter itself. Bars and bands: 95 % intervals "
        "over queries within tasks; around the mean of random heads' vectors, the "
        "range of the draws."
    )
    text = " ".join(
        filter(None, [text, first_tokens.left_out(found.run, part["tasks"])])
    )
    rows = [Row("By condition", [drawn.conditions(found, kind) for kind in KINDS])]
    if len(found.run.arrays["execution/layers"]) > 1:
        rows.append(Row("By layer", drawn.by_layer(found)))
    if len(part["counts"]) > 1:
        title = f"By number of heads, at layer {part['layer']}"
        rows.append(Row(title, drawn.by_size(found)))
    return Section(
        "execution",
        "Function vectors at work",
        text,
        keys=[
            Key("function vector", "fv", "line"),
            Key("vectors of random heads", "random", "line"),
            Key("no vector", "ink", "dots"),
            Key(f"a third of the depth, layer {part['layer']}", "ink", "dashes"),
        ],
        rows=rows,
        tables=[told.table(found), _tasks(found), _facts(found)],
    )


def _tasks(found: Executed) -> Table:
    part = found.part
    columns = ["task", "answered when clean", "different queries"]
    columns += ["shuffled", "+ random", "+ FV", "zero-shot", "+ random", "+ FV"]
    each = [_by_task(found, kind) for kind in KINDS]
    if not part["random_sets"]:
        columns = [name for name in columns if name != "+ random"]
    rows = []
    for at, task in enumerate(found.tasks):
        one = part["by_task"][task]
        answered = f"{one['answered']} of {part['prompts']}"
        measured = [(float(v[at]), shade) for kind in each for shade, v in kind]
        cells = [Cell(f"{value:.2f}", "", value, shade) for value, shade in measured]
        rows.append([task, answered, f"{one['queries']:,}", *cells])
    where = "the chosen layer" if found.chosen_layers else f"layer {part['layer']}"
    return Table(f"Task by task, vectors at {where}", columns, rows, 1)


def _by_task(found: Executed, kind: str) -> list[tuple[str, np.ndarray]]:
    """Accuracy by task [U] without a vector, with random heads' and with its own."""
    listed = found.conditions(kind)[1:]
    last = {one.colour: one for one in listed}  # of each colour the chosen layer's
    return [(shade, one.right.mean(-1)) for shade, one in last.items()]


def _facts(found: Executed) -> Table:
    part, run = found.part, found.run
    length, random = found.norms()
    shared = [t for t in part["tasks"] if t in (run.result.get("scoring_tasks") or [])]
    facts = {
        "heads in the vector": ", ".join(part["heads"]),
        "length of the function vectors, mean over tasks": words.number(length),
    }
    if random is not None:
        facts["length of random heads' vectors: not matched"] = words.number(random)
    facts |= {
        "bias of the output projection": {
            "none": "in no vector",
            "each_head": "once for each head, as in the published code",
        }[part["bias"]],
        "tasks by which the heads were ranked too": ", ".join(shared) or "none",
    }
    if found.chosen_layers:
        layers = run.arrays["execution/layers"]
        for kind, chosen in found.chosen_layers.items():
            at = sorted({int(layers[index]) for index in chosen})
            facts[f"chosen layers, {KINDS[kind]}"] = ", ".join(map(str, at))
    rows = [[words.sentence(name), text] for name, text in facts.items()]
    return Table("The vectors", ["", ""], rows, 2)


def _read_outs(found: Executed) -> Section:
    part = found.part
    names = {"read_out": "tokens of the largest logits"}
    names["read_out_apart"] = "the same without the mean over tasks"
    first = part["by_task"][part["tasks"][0]]
    names = {name: title for name, title in names.items() if name in first}
    rows = [
        [task]
        + [
            "  ".join(_token(one) for one in part["by_task"][task][name])
            for name in names
        ]
        for task in part["tasks"]
    ]
    return Section(
        "read-out",
        "What the function vectors say",
        "Each vector goes through the final norm and the unembedding, as if it were "
        "the whole residual stream. Vectors of all tasks have much in common, such as "
        "the form of an answer: without their mean, what is left is the task's own. A "
        "vector may do its work and say nothing here: later layers read it first.",
        tables=[Table("Read-out by task", ["task", *names.values()], rows, 99)],
    )


def _token(one: dict) -> str:
    return repr(one["token"])
