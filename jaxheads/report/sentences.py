"""The findings in words, uncertain differences said to be uncertain."""

from typing import NamedTuple

from jaxheads import run_scores
from jaxheads.report import words
from jaxheads.report.findings import Chosen, Comparison, Findings
from jaxheads.runs import Run
from jaxheads.statistics import Interval

_FV, _INDUCTION = "function_vector", "induction"
_NOUN = {_FV: "function-vector", _INDUCTION: "induction"}
_FEW_SHOT, _TEXT = "few-shot learning", "learning from running text"


class Statement(NamedTuple):
    """A sentence or two, with the word or two that say what it is about."""

    lead: str
    text: str


def verdict(found: Findings) -> str:
    """Answer the question in a line or two, from sets with exclusion where measured."""
    said = []
    for unit, what in (("", _FEW_SHOT), ("nats", _TEXT)):
        comparison = found.comparison("exclusion", unit) or found.comparison(
            "top", unit
        )
        if comparison:
            said.append(_verdict_of(what, comparison))
    if not said:
        return (
            "This run ranks the heads; it holds no ablation that would tell which of "
            "them the model needs."
        )
    return " ".join(said)


def _verdict_of(what: str, said: Comparison) -> str:
    if _nothing_to_lose(said):
        return (
            f"No {what} was seen: with no head replaced the {said.quantity} is not "
            "above zero, within its uncertainty."
        )
    hurts = {name for name in _NOUN if said.against_random.get(name) == "below"}
    if said.gap is None:
        names = [_NOUN[name] for name in _NOUN if name in hurts]
        if not names:
            return f"No ranking's heads could be told from random ones for {what}."
        return (
            f"{words.sentence(names[0])} heads matter more than random ones for {what}."
        )
    if said.against_random and not hurts:
        return (
            "Neither function-vector nor induction heads could be told from random "
            f"heads for {what}."
        )
    if _undecided(said.gap):
        return (
            "Function-vector and induction heads are not distinguishable for "
            f"{what}, with these {_samples(said)}."
        )
    winner, loser = (_FV, _INDUCTION) if said.gap.mean < 0 else (_INDUCTION, _FV)
    carry = "carry" if _lost(said, winner) >= 0.5 else "contribute most to"
    text = f"{words.sentence(_NOUN[winner])} heads {carry} {what}"
    if loser in hurts:
        return f"{text}; {_NOUN[loser]} heads matter too, but less."
    if said.against_random:
        return f"{text}; {_NOUN[loser]} heads could not be told from random ones."
    return f"{text}, more than {_NOUN[loser]} heads."


def say(run: Run, found: Findings) -> list[Statement]:
    """Write the statements of the answer, in reading order."""
    said = [Statement("The leading heads", _leaders(run, found))]
    plain, exclusion = (found.comparison(mode) for mode in ("top", "exclusion"))
    if plain:
        text = (
            f"Replacing the top {_share(plain)} of heads at the last position by "
            f"{_fill(run)} takes {plain.quantity} {_results(plain)}."
            f"{_differences(plain)}"
        )
        said.append(Statement("Few-shot learning", text))
    if exclusion:
        said.append(Statement("With exclusion", _exclusion(exclusion)))
    said += [Statement("The chosen heads", _chosen(one)) for one in found.chosen]
    plain, exclusion = (found.comparison(mode, "nats") for mode in ("top", "exclusion"))
    if plain or exclusion:
        said.append(Statement("Running text", _token_loss(plain, exclusion)))
    if found.agreement:
        said.append(Statement("Two kinds or one?", _agreement(found)))
    return [statement for statement in said if statement.text]


def _leaders(run: Run, found: Findings) -> str:
    said = []
    for name in _NOUN:
        leaders = found.leaders.get(name)
        if not leaders:
            continue
        first, info = leaders[0], run.result["scores"][name]
        total = run_scores.score(run, name).size
        noun = _NOUN[name]
        if not run_scores.detectable(first, info.get("chance") or 0.0, total):
            said.append(
                f"No head's {noun} score stands out from chance (largest: {first.name} "
                f"with {words.head_score(first)})."
            )
            continue
        phrase = "mean effect" if name == _FV else "score"
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
        f"{_share(said)} takes it {_results(said)}.{_differences(said)}"
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
        f"context) {_results(said)}.{_differences(said)}"
    )
    if plain and exclusion and exclusion.gap is not None:
        text += f" With exclusion: {_gap(exclusion).replace('Replacing', 'replacing')}"
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


def _differences(said: Comparison) -> str:
    """Compare the two rankings, and each with random heads."""
    text = f" {_gap(said)}" if said.gap is not None else ""
    among = [n for n, place in said.against_random.items() if place == "among"]
    if len(among) == len(said.against_random) > 1:
        text += " None of them can be told from random heads."
        among = []
    for name in among:
        noun = words.sentence(words.short(name))
        text += f" {noun} heads are not distinguishable from random ones."
    for name, place in said.against_random.items():
        if place == "above":
            noun = words.sentence(words.short(name))
            text += f" {noun} heads matter less than random ones."
    return text


def _gap(said: Comparison) -> str:
    gap = said.gap
    assert gap is not None
    unit = f" {said.unit}" if said.unit else ""
    if _undecided(gap):
        return (
            f"FV and induction are not distinguishable with these {_samples(said)} "
            f"(FV minus induction {words.with_interval(*gap)}{unit})."
        )
    worse, other = ("FV", "induction") if gap.mean < 0 else ("induction", "FV")
    low, high = sorted(abs(side) for side in (gap.low, gap.high))
    size = words.with_interval(abs(gap.mean), low, high)
    return (
        f"Replacing the {worse} heads leaves it {size}{unit} lower than replacing the "
        f"{other} heads."
    )


def _agreement(found: Findings) -> str:
    assert found.agreement is not None
    top = found.agreement.overlaps[0]
    return (
        f"The top-{words.percent(top.share)} sets by FV and by induction score share "
        f"{top.shared} of {words.plural(top.count, 'head')} "
        f"({words.number(top.chance)} by chance); over all heads the two scores' rank "
        f"correlation is {words.number(found.agreement.spearman)}."
    )


def _undecided(interval: Interval) -> bool:
    return interval.low <= 0 <= interval.high


def _nothing_to_lose(said: Comparison) -> bool:
    """Tell whether the clean value itself may be zero: there is nothing to explain."""
    return "clean" in said.bars and said.bars["clean"].interval.low <= 0


def _samples(said: Comparison) -> str:
    return "documents" if said.unit else "prompts"


def _lost(said: Comparison, name: str) -> float:
    """Share of the clean value that replacing the heads of a ranking takes away."""
    if "clean" not in said.bars:
        return 0.0
    clean = said.bars["clean"].interval.mean
    return (clean - said.bars[name].interval.mean) / clean if clean > 0 else 0.0
