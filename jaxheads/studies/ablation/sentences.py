"""The findings in words: numbers as measured, and the verdicts of the claims."""

from collections.abc import Sequence

from jaxheads.heads import run_scores
from jaxheads.report import words
from jaxheads.report.layout import Statement
from jaxheads.runs import Run
from jaxheads.scores.config import FV, INDUCTION
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation.findings import Chosen, Comparison, Findings
from jaxheads.studies.claims_page import quote, quotes

_NOUN = {FV: "function-vector", INDUCTION: "induction"}
_TOP_CLAIMS = ("fv_matters_more", "fv_worse_than_layer_matched")
_EXCLUSION_CLAIMS = (
    "fv_matters_more_excluded",
    "fv_worse_than_random_excluded",
    "induction_like_random_excluded",
)
_LOSS_CLAIMS = ("induction_matters_more_for_loss", "accuracy_and_loss_differ")


FEW_SHOT_CLAIMS = ("fv_matters_more_excluded", "fv_matters_more")
"""What answers the question for few-shot prompts: the first that a run measures."""
TEXT_CLAIMS = ("induction_matters_more_for_loss",)
_ONE_RANKING = (
    "fv_worse_than_random_excluded",
    "fv_worse_than_layer_matched",
    "fv_alone_keeps_more",
)


def first_measured(judged: Sequence[Claim], names: Sequence[str]) -> Claim | None:
    """The first claim of these names that a run measures."""
    known = {one.name: one for one in judged if one.verdict != "not measured"}
    return next((known[name] for name in names if name in known), None)


def verdict(found: Findings, judged: Sequence[Claim]) -> str:
    """Answer the question by the verdicts on the claims that ask it."""
    asked = ((*FEW_SHOT_CLAIMS, *_ONE_RANKING), TEXT_CLAIMS)
    said = [quote(claim) for names in asked if (claim := first_measured(judged, names))]
    if said:
        return " ".join(said)
    if found.comparisons:
        return (
            "This run measures none of the papers' claims on what replacing heads does."
        )
    return (
        "This run ranks the heads; it holds no ablation that would tell which of "
        "them the model needs."
    )


def say(run: Run, found: Findings, judged: Sequence[Claim]) -> list[Statement]:
    """Write the statements of the answer, in reading order."""
    said = [Statement("The leading heads", _leaders(run, found))]
    plain, exclusion = (found.comparison(mode) for mode in ("top", "exclusion"))
    if plain:
        text = (
            f"Replacing the top {_share(plain)} of heads at the last position by "
            f"{_fill(run)} takes {plain.quantity} {_results(plain)}."
        )
        text = f"{text} {quotes(judged, *_TOP_CLAIMS)}".rstrip()
        said.append(Statement("Few-shot learning", text))
    if exclusion:
        text = f"{_exclusion(exclusion)} {quotes(judged, *_EXCLUSION_CLAIMS)}".rstrip()
        said.append(Statement("With exclusion", text))
    said += [Statement("The chosen heads", _chosen(one)) for one in found.chosen]
    plain, exclusion = (found.comparison(mode, "nats") for mode in ("top", "exclusion"))
    if plain or exclusion:
        text = f"{_token_loss(plain, exclusion)} {quotes(judged, *_LOSS_CLAIMS)}"
        said.append(Statement("Running text", text.rstrip()))
    if found.agreement:
        said.append(Statement("Two kinds or one?", _agreement(found)))
    return [statement for statement in said if statement.text]


def _leaders(run: Run, found: Findings) -> str:
    said = []
    for name in _NOUN:
        leaders = found.leaders.get(name)
        if not leaders:
            continue
        first, noun = leaders[0], _NOUN[name]
        known = run_scores.samples(run, name) != 0
        stands = run_scores.standing_out(run, name)[first.layer, first.head]
        if known and not stands:
            said.append(
                f"No head's {noun} score stands out from chance (largest: {first.name} "
                f"with {words.head_score(first)})."
            )
            continue
        phrase = "mean effect" if name == FV else "score"
        text = f"Head {first.name} leads the {noun} ranking "
        text += f"({phrase} {words.head_score(first)}"
        for second in leaders[1:2]:
            apart = run_scores.separated(first, second)
            tail = "" if apart else ", not distinguishable from it"
            text += f"; next {second.name} with {words.number(second.score)}{tail}"
        said.append(text + ").")
    return " ".join(said)


def _exclusion(said: Comparison) -> str:
    return (
        f"With the heads at the top of the other ranking left alone, replacing "
        f"{_share(said)} takes it {_results(said)}."
    )


def _chosen(said: Chosen) -> str:
    heads_text = f"the {said.count:,} chosen " + (
        "head" if said.count == 1 else "heads"
    )
    return (
        f"Replacing {heads_text} ({said.name}) leaves {said.quantity} at "
        f"{words.with_interval(*said.interval)}, a change of "
        f"{words.with_interval(*said.change)}."
    )


def _token_loss(plain: Comparison | None, exclusion: Comparison | None) -> str:
    said = plain or exclusion
    assert said is not None
    how = "" if plain else ", with exclusion,"
    text = (
        f"Replacing the top {_share(said)} of heads at every position{how} takes the "
        "token-loss difference (in nats; positive means that the model learns in "
        f"context) {_results(said)}."
    )
    if plain and exclusion:
        text += f" With exclusion it goes {_results(exclusion)}."
    return text


def _fill(run: Run) -> str:
    value = run.result["ablation"].get("value")
    return {"mean": "their mean", "zero": "zero"}.get(value, str(value))


def _share(said: Comparison) -> str:
    return f"{words.percent(said.fraction)} ({said.count:,} of {said.total:,})"


def _results(said: Comparison) -> str:
    """List what each set did: "from 0.46 to 0.08 [..] (FV score), 0.31 ..."."""
    names = [name for name in said.bars if name not in ("clean", "random")]
    listed = [
        f"{words.with_interval(*said.bars[name].interval)} ({words.short(name)} score)"
        for name in names
    ]
    if "random" in said.bars:
        bar = said.bars["random"]
        mean, low, high = words.aligned(*bar.interval)
        if bar.spread.startswith("range of "):
            draws = bar.spread.removeprefix("range of ")
            listed.append(f"{mean} (random heads; {low} to {high} over {draws})")
        else:
            listed.append(f"{mean} [{low}, {high}] (random heads)")
    *first, last = listed
    text = f"{', '.join(first)} or {last}" if first else last
    if "clean" not in said.bars:
        return f"to {text}"
    return f"from {words.with_interval(*said.bars['clean'].interval)} to {text}"


def _agreement(found: Findings) -> str:
    assert found.agreement is not None
    top = found.agreement.overlaps[0]
    return (
        f"The top-{words.percent(top.share)} sets by FV and by induction score share "
        f"{top.shared} of {words.plural(top.count, 'head')} "
        f"({words.number(top.chance)} by chance); over all heads the two scores' rank "
        f"correlation is {words.number(found.agreement.spearman)}."
    )
