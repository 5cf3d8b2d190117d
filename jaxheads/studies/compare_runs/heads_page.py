"""Single heads of trainings that are compared, on the page: effects, and patching."""

import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.studies.compare_runs import heads_figures as drawn
from jaxheads.studies.compare_runs.effects import title
from jaxheads.studies.compare_runs.head_tests import top_places, what_it_does

TOP = 10
SEEDS = 4
"""Whose patching is drawn, of an arm; the table has all."""


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run compares trainings and asked for causes."""
    made = []
    if drawn.arms_with(run, "head_effects/prefix_matching"):
        made.append(_effects(run))
    if drawn.patched_arms(run):
        made.append(_patching(run))
    return made


def _effects(run: Run) -> Section:
    arms = drawn.arms_with(run, "head_effects/prefix_matching")
    names = drawn.groups(run, arms[0])
    text = (
        "Each head alone is replaced at every position by its mean output. Effect: "
        "P(correct) without the head, minus with it. Below 0 the head helps; above 0 "
        "it stands in the way, which of a head that matches prefixes is called "
        "anti-induction. Groups of targets: random tokens after their first copy "
        "(repetition) and those of held-out windows. p: paired t tests over samples, "
        "by Holm over the heads of a seed."
    )
    rows = [
        Row(words.sentence(title(name)), drawn.effects(run, name), min(3, len(arms)))
        for name in names
    ]
    keys = [
        Key("helps, p < 0.05", drawn.KINDS["helps"], "circle"),
        Key("stands in the way, p < 0.05", drawn.KINDS["harms"], "diamond"),
        Key("neither is clear", drawn.KINDS["unclear"], "circle"),
    ]
    return Section(
        "head-effects",
        "What does each head do for the right token?",
        text,
        keys=keys,
        rows=[row for row in rows if row.figures],
        facts=[_counted(run, at, name) for name in names[:2] for at in arms],
        tables=[_top_heads(run, at) for at in arms],
    )


def _counted(run: Run, at: int, group: str) -> str:
    """How many of the top heads help, in a sentence."""
    part = lambda name: drawn.of_arm(run, at, f"head_effects/{name}")
    effect, p = part(f"effect/{group}"), part(f"effect_p/{group}")
    kinds = []
    for n, prefix in enumerate(part("prefix_matching")):
        for place in top_places(prefix, TOP):
            kinds.append(what_it_does(effect[n][place], p[n][place]))
    return (
        f"{run.result['arms'][at]['name']}: of the heads that match prefixes most, "
        f"{TOP} of every seed at most, {kinds.count('helps')} of {len(kinds)} help on "
        f"{title(group)}, {kinds.count('harms')} stand in the way, "
        f"{kinds.count('unclear')} are not clear."
    )


def _top_heads(run: Run, at: int) -> Table:
    """List the heads of all seeds that match prefixes most."""
    arm, names = run.result["arms"][at], drawn.groups(run, at)
    part = lambda name: drawn.of_arm(run, at, f"head_effects/{name}")
    prefix = part("prefix_matching")
    listed = top_places(prefix, TOP)
    widest = {
        name: max(abs(part(f"effect/{name}")[place]) for place in listed) or 1.0
        for name in names
    }
    rows = []
    for place in listed:
        row = [
            head_name(*place[1:]),
            str(arm["seeds"][place[0]]),
            Cell(words.number(prefix[place]), "", float(prefix[place]), "induction"),
        ]
        for name in names:
            value, p = part(f"effect/{name}")[place], part(f"effect_p/{name}")[place]
            text = words.with_error(value, part(f"effect_se/{name}")[place])
            bar = float(abs(value) / widest[name])
            shade = drawn.KINDS[what_it_does(value, p)]
            row.append(Cell(text, f"p {words.p_value(p)}", bar, shade))
        rows.append(row)
    columns = ["head", "seed", "prefix matching"] + [title(name) for name in names]
    caption = f"{arm['name']}: the {words.plural(len(rows), 'head')} of all seeds that "
    return Table(f"{caption}match prefixes most, and effects", columns, rows, 2)


def _patching(run: Run) -> Section:
    arms = drawn.patched_arms(run)
    compared = run.result["compared"]
    donor, recipient = compared["donor_step"], compared["recipient_step"]
    text = (
        f"The model of step {recipient} runs on random tokens that repeat, and what "
        "one layer's attention adds to its stream is replaced by what the same layer "
        f"of step {donor} adds (by its own output matrix) on the same tokens. If later "
        "heads match prefixes then, these activations are what they lacked. The "
        "control takes the activations from other random tokens of the same period."
    )
    rows = []
    for at in arms:
        seeds = range(min(SEEDS, len(run.result["arms"][at]["seeds"])))
        figures = [drawn.patched(run, at, n) for n in seeds]
        rows.append(Row("", figures, 2 if len(figures) < 3 else 3))
    chance = float(drawn.of_arm(run, arms[0], "patching/chance"))
    return Section(
        "patching",
        f"Does step {recipient} match prefixes on activations of step {donor}?",
        text,
        rows=rows,
        facts=[f"Even attention would score {words.number(chance)}."],
        tables=[_by_layer(run, arms)],
    )


def _by_layer(run: Run, arms: list[int]) -> Table:
    """The best later head of every seed, by the layer that is patched."""
    rows = []
    for at in arms:
        part = lambda name, at=at: drawn.of_arm(run, at, f"patching/{name}")
        given, control = part("prefix_matching"), drawn.control(run, at)
        own, donor, before = (
            part(name) for name in ("baseline", "donor", "donor_previous_token")
        )
        for n, seed in enumerate(run.result["arms"][at]["seeds"]):
            for l in range(given.shape[1] - 1):
                later = given[n, l, l + 1 :]
                best = np.unravel_index(np.argmax(later), later.shape)
                place = (int(best[0]) + l + 1, int(best[1]))
                columns = (
                    later[best], control[n, l][place], own[n][place], donor[n][place],
                    donor[n, l + 1 :].max(), before[n, l].max(),
                )  # fmt: skip
                rows.append(
                    [
                        run.result["arms"][at]["name"],
                        str(seed),
                        str(l),
                        head_name(*place),
                        *(words.number(float(value)) for value in columns),
                    ]
                )
    columns = ["arm", "seed", "layer patched", "best later head", "its prefix matching"]
    columns += ["control", "not patched", "in the donor", "the donor's best later head"]
    columns += ["the donor's previous-token score there"]
    return Table("Prefix matching after a layer is patched", columns, rows, 4)
