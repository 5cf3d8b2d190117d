"""What heads do, at one checkpoint: attention, copying and QK traces of every seed."""

import jax
import numpy as np

from jaxheads.scores import qk_trace
from jaxheads.training.evidence_probes import head_figures
from jaxheads.training.trained import Trained

_MEASURED = ("copying", "prefix_matching", "previous_token")


def circuit_figures(trained: Trained, step: int) -> dict[str, np.ndarray]:
    """Head figures of all seeds at one checkpoint.

    - "copying", "prefix_matching", "previous_token": see
      ``training.evidence_probes.head_figures``; out of the run's evaluations where
      there is one of this step, else measured on the same sequences;
    - "qk_trace": does a head look for keys that hold, through earlier heads weighted by
      their previous-token score, the current token? The trace of the circuit between
      tokens over the sum of its eigenvalues' magnitudes (``scores.qk_trace``,
      "positivity"), so that heads, layers and steps can be compared: 1 if every
      direction is matched to itself, -1 if to its opposite. Chance: random weights have
      0 on average and, as their eigenvalues point anywhere, about 1 over the head's
      width for a standard deviation. 0 in the first layer, which has no earlier heads;
      what smeared or shifted keys take up is no part of it.

    Args:
        trained: a run.
        step: of the checkpoint.

    Returns:
        float32 [N, L, H] by name.

    Raises:
        UserError: there are no models of this step, or they are damaged.

    Source: Olsson et al. 2022, head activation evaluators; QK eigenvalue (trace).
    """
    params, config = trained.params(step), trained.model_config
    found = _evaluated(trained, step)
    if found is None:
        found = head_figures(params, trained.evidence().probes, config)
    weights = np.asarray(found["previous_token"], np.float64)  # [N, L, H]
    traces = np.full(weights.shape, np.nan)  # so it stays where a model is broken
    for n, shares in enumerate(weights):
        if np.isfinite(shares).all():
            one = jax.tree.map(lambda leaf, n=n: leaf[n], params)
            circuits = qk_trace.matching_circuits(one, config, shares)
            traces[n] = qk_trace.head_scores(circuits, "positivity").mean
    return found | {"qk_trace": traces.astype(np.float32)}


def _evaluated(trained: Trained, step: int) -> dict[str, np.ndarray] | None:
    """The measured figures as they were at the evaluation of a step, if there is."""
    at = np.flatnonzero(trained.eval_steps == step)
    values = {name: trained.evaluated(name) for name in _MEASURED}
    if not len(at) or any(each is None for each in values.values()):
        return None
    made = {name: each[at[0]] for name, each in values.items() if each is not None}
    # An evaluation that is no number is none: the model itself may be sound.
    return made if all(np.isfinite(each).all() for each in made.values()) else None
