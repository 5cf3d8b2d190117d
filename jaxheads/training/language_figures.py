"""How well a model in training has found the languages of held-out prompts.

Beside the model stand 3-grams of the same prompts: what counting alone finds.
"""

import numpy as np

from jaxheads.statistics.units import mean_where
from jaxheads.training.data.languages import (
    RegularLanguages,
    distance_between,
    legal_next_symbol,
    ngram_predictions,
    total_variation,
)
from jaxheads.training.data.windows import Source, Windows


def prompt_ngrams(source: Source, windows: Windows) -> np.ndarray | None:
    """What 3-grams of each prompt predict, float64 [S, T, symbols].

    None of a source that is not ``RegularLanguages``.
    """
    if not isinstance(source, RegularLanguages):
        return None
    return ngram_predictions(windows.tokens, source.family.symbols, source.separator)


def language_figures(
    source: RegularLanguages,
    windows: Windows,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    ngrams: np.ndarray,
) -> dict[str, np.ndarray]:
    """Legal next symbols and distances from the language; only scored targets count.

    - "legal_next_symbol" (share) and "total_variation" (0 to 1) of the models; each
      also with "_by_string" [strings], of targets with 0, 1, ... strings before theirs
      in the prompt;
    - the same four names with "_of_ngrams", of 3-grams of the prompt: equal for all
      models, and at every evaluation;
    - "total_variation_from_ngrams": mean distance between a model and those 3-grams.

    Args:
        source: of the windows.
        windows: S of them.
        predicted: int [N, S, T], the likeliest tokens of N models.
        probabilities: float [N, S, T, V].
        ngrams: from ``prompt_ngrams``.

    Returns:
        float64 [N, ...] by name.

    Source: Akyürek et al. 2024, arXiv 2401.12973.
    """
    automata, string, scored = source.automata, windows.info["string"], windows.scored
    groups = [scored & (string == at) for at in range(int(string.max(initial=0)) + 1)]
    runs = len(predicted)
    found = {}

    def tell(end: str, predicted: np.ndarray, probabilities: np.ndarray) -> None:
        legal = [legal_next_symbol(each, windows, automata) for each in predicted]
        distance = [total_variation(each, windows, automata) for each in probabilities]
        for name, each in (("legal_next_symbol", legal), ("total_variation", distance)):
            values = np.stack(each)
            by_string = [mean_where(values, group) for group in groups]
            for key, mean in (
                (f"{name}{end}", mean_where(values, scored)),
                (f"{name}_by_string{end}", np.stack(by_string, axis=1)),
            ):
                found[key] = np.repeat(mean, runs // len(mean), axis=0)

    tell("", predicted, probabilities)
    tell("_of_ngrams", ngrams.argmax(axis=2)[None], ngrams[None])
    apart = [distance_between(each, ngrams, windows) for each in probabilities]
    found["total_variation_from_ngrams"] = mean_where(np.stack(apart), scored)
    return found
