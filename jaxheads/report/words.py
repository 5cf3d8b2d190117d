"""How the page names and prints things: one place, so that it never disagrees."""

import math

from jaxheads.heads.run_scores import Head
from jaxheads.scores import registry

MINUS = "\u2212"
NONE = "\u2013"  # a value that is not there
_OTHERS = {
    "none": "no head",
    "first_token": "first-token accuracy",
    "f1": "F1 of five tokens",
}
"""Rankings that are no scores, and metrics, in a few letters."""
_CURVES = {
    "loss": "training loss",
    "loss_bump": "bump of the training loss",
    "prefix_matching": "prefix matching, the top head",
    "prefix_first": "prefix matching, the top head",
    "prefix_top": "prefix matching, mean of the top heads",
    "previous_token": "previous token, the top head",
    "copying": "copying, the top head",
    "induction_heads": "induction heads",
    "icl_score": "in-context learning score (late minus early loss)",
    "token_loss_difference": "early minus late loss",
    "token_loss_difference_non_extractive": "early minus late loss, no copies",
    "repetition_accuracy": "random tokens repeated, the last one",
    "repetition_accuracy_whole": "random tokens repeated, all of them",
    "accuracy": "held-out targets",
    "accuracy_copied": "targets that are copies",
    "accuracy_copyable": "targets that a copy gives",
    "accuracy_answer": "answers that no copy gives",
    "accuracy_plain": "targets of neither kind",
    "accuracy_predictable": "targets that a copy gives",
    "accuracy_first_induction": "first targets that a copy gives",
    "copyable_loss": "loss of targets that a copy gives",
    "plain_loss": "loss of targets that are neither copies nor answers",
    "answer_loss": "loss of functions' answers",
    "shot_1": "functions' answers after 1 pair",
    "shot_4": "functions' answers after 4 pairs",
    "shot_8": "functions' answers after 8 pairs",
    "fewshot_accuracy": "few-shot tasks, their mean",
    "fewshot_log_probability": "few-shot answers, mean of the tasks",
    "legal_next_symbol": "legal next symbols",
    "total_variation": "total variation distance to the language",
}
"""What a training's evaluations measured of its heads, its context and its targets."""


def title(name: str) -> str:
    """Name a score in a heading."""
    if score := registry.find(name):
        return score.title
    return name.replace("_", " ").capitalize() + " score"


def short(name: str) -> str:
    """Name a ranking or a metric in a few letters."""
    if score := registry.find(name):
        return score.short
    return _OTHERS.get(name, name.replace("_", " "))


def curve(name: str) -> str:
    """Name what a training's evaluations measured."""
    return _CURVES.get(name, name.replace("_", " "))


def number(value: float | None) -> str:
    """Print with two sensible digits: 0.46, 0.021, 0.0017, 12.3, 1,024."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2
    if size < 0.1:
        decimals = 1 - math.floor(math.log10(size))
    text = f"{value:,.{decimals}f}"
    return text.replace("-", MINUS)


def head_score(head: Head) -> str:
    """Write a head's score with its standard error."""
    return with_error(head.score, head.error)


def with_error(value: float, error: float) -> str:
    """Print a value with its standard error, both to the error's leading digit."""
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return number(value)
    places = -math.floor(math.log10(error))
    if error * 10**places < 2:  # keep two digits of an error that starts with 1
        places += 1
    places = min(max(places, 0), 6)
    text = f"{value:,.{places}f} ± {error:,.{places}f}"
    return text.replace("-", MINUS)


def aligned(*values: float) -> list[str]:
    """Print numbers of one interval with as many decimals as its width deserves."""
    width = max(values) - min(values)
    if not math.isfinite(width) or width == 0:
        return [number(value) for value in values]
    places = min(max(2, -math.floor(math.log10(width))), 4)
    return [f"{value:,.{places}f}".replace("-", MINUS) for value in values]


def with_interval(mean: float, low: float, high: float) -> str:
    """Print a mean with its interval: 0.31 [0.27, 0.35]."""
    mean_text, low_text, high_text = aligned(mean, low, high)
    return f"{mean_text} [{low_text}, {high_text}]"


def p_value(p: float) -> str:
    """Print a p value: 0.021, < 0.001."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(share: float) -> str:
    """Print a share as a percentage: 0.05 is 5 %."""
    return f"{100 * share:.3g} %"


def magnitude(value: float | None) -> str:
    """Print a large count in short: 1.2 M, 30 T."""
    if value is None or not math.isfinite(value):
        return NONE
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g}"


def parameters(count: int) -> str:
    """Print a number of parameters as models' names do: 135 M, 6.9 B."""
    return magnitude(count).replace("G", "B")


def seconds(value: float) -> str:
    """Print a duration: 12 s, 3 min 05 s."""
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(count: int, noun: str) -> str:
    """Print a count with its noun: 1 head, 14 heads."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def sentence(text: str) -> str:
    """Begin with a capital letter, and leave the rest as it is."""
    return text[:1].upper() + text[1:]
