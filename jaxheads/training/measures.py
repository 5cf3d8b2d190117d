"""Evidence during training: what tells whether and when induction heads form.

Every figure is measured on inputs that stay the same throughout a run, so that curves
over steps show the model alone. ``make_evidence`` gives what ``train`` takes as
``evidence``::

    evidence = make_evidence(EvidenceConfig(), model_config, source)
    train(config, model_config, source, out, evidence=evidence)

The figures of heads and the repetition accuracy come from random tokens
(``evidence_probes``), few-shot accuracy of a run on text from prompts of named tasks
(``fewshot``), everything else from held-out windows (``evidence_windows``).
"""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from jaxheads.errors import UserError
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.config import EvidenceConfig
from jaxheads.training.data.windows import Source
from jaxheads.training.fewshot import FewShot, draw_fewshot, fewshot_figures
from jaxheads.training.held_out import (
    HeldOut,
    draw_windows,
    run_windows,
    window_figures,
)
from jaxheads.training.probes import (
    Probes,
    draw_probes,
    head_figures,
    repetition_figures,
)

_NATS = ("icl_score", "token_loss", "loss", "early_loss", "late_loss")
_NATS += ("fewshot_log_probability",)
_DIMS = {
    "prefix_matching": ("L", "H"),
    "previous_token": ("L", "H"),
    "copying": ("L", "H"),
    "loss_by_position": ("T",),
    "token_losses": ("sample",),
    "accuracy_by_shot": ("pairs before",),
    "loss_by_shot": ("pairs before",),
    "fewshot_accuracy": ("task",),
    "fewshot_log_probability": ("task",),
    "legal_next_symbol_by_string": ("strings before",),
    "legal_next_symbol_by_string_of_ngrams": ("strings before",),
    "total_variation_by_string": ("strings before",),
    "total_variation_by_string_of_ngrams": ("strings before",),
}


AXES = {name: ("seed", *dims) for name, dims in _DIMS.items()}
"""Of the figures of all seeds that have axes of their own."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingEvidence:
    """Measures a model in training; from ``make_evidence``.

    Attributes:
        config: what is measured.
        model_config: the family's ``Config``.
        probes: sequences of random tokens.
        held_out: windows.
        few_shot: prompts of the tasks that were named, or None.
    """

    config: EvidenceConfig
    model_config: Any
    probes: Probes
    held_out: HeldOut
    few_shot: FewShot | None = None

    def __call__(self, step: int, params: Any) -> dict[str, np.ndarray]:
        """``measure``, as the training loop calls it."""
        del step  # the inputs are the same at every step
        return self.measure(params)

    def measure(self, params: Any) -> dict[str, np.ndarray]:
        """All figures of one model, or of N at once.

        Args:
            params: of the family of ``model_config``; leaves with a leading axis N or
                without it.

        Returns:
            float32 by name, with the axis N if the params have it: "prefix_matching",
            "previous_token", "copying" [L, H], see ``head_figures``;
            "repetition_accuracy" and "repetition_accuracy_whole" [], see
            ``repetition_figures``; those of ``window_figures``; and, if tasks were
            named, of ``fewshot_figures``.
        """
        alone = params.embedding.ndim == 2
        if alone:
            params = jax.tree.map(lambda leaf: leaf[None], params)
        found = head_figures(params, self.probes, self.model_config)
        found |= repetition_figures(params, self.probes, self.model_config)
        seen = run_windows(params, self.held_out, self.model_config)
        found |= window_figures(self.held_out, seen)
        if self.few_shot is not None:
            found |= fewshot_figures(params, self.few_shot, self.model_config)
        return {name: values[0] if alone else values for name, values in found.items()}

    def describe(self) -> dict[str, Any]:
        """What is measured on what, ready for JSON."""
        held, probes = self.held_out, self.probes
        content = (probes.repeated, probes.once, probes.cut, held.windows.tokens)
        sha256 = hashlib.sha256(b"".join(x.astype("<i4").tobytes() for x in content))
        counts = {name or "all": int(n.sum()) for name, n in held.samples.items()}
        few = self.few_shot
        return {
            **dataclasses.asdict(self.config),
            "evidence_tasks": list(self.config.evidence_tasks),
            "few_shot": None if few is None else few.describe(),
            "evidence_positions": [at + 1 for at in held.at],
            "evidence_samples": len(held.windows.scored),
            "samples_of_icl_score": counts,
            "probe_period": probes.period,
            "probe_bos": probes.bos,
            "sha256": sha256.hexdigest(),
        }


def make_evidence(
    config: EvidenceConfig,
    model_config: Any,
    source: Source,
    held_out: Source | None = None,
    tokenizer: Tokenizer | None = None,
) -> TrainingEvidence:
    """Draw the probes, the held-out windows and the few-shot prompts of a run.

    Args:
        config: what is measured.
        model_config: the family's ``Config``.
        source: of training; its vocabulary is the probes'.
        held_out: of the held-out windows; None: ``source``, in an order that no seed
            reads.
        tokenizer: of text, for few-shot tasks; None: there is none.

    Raises:
        UserError: choices that do not fit each other or the data; few-shot tasks
            without a tokenizer.
    """
    config.check()
    return TrainingEvidence(
        config,
        model_config,
        draw_probes(
            source,
            model_config.context_length,
            sequences=config.probe_sequences,
            period=config.probe_period,
            repeats=config.probe_repeats,
            repetitions=config.repetitions,
            seed=config.evidence_seed,
        ),
        draw_windows(
            source if held_out is None else held_out,
            samples=config.evidence_samples,
            positions=config.evidence_positions,
            seed=config.evidence_seed,
        ),
        _few_shot(config, model_config, source, tokenizer),
    )


def _few_shot(
    config: EvidenceConfig,
    model_config: Any,
    source: Source,
    tokenizer: Tokenizer | None,
) -> FewShot | None:
    """Prompts of the tasks that were named."""
    if not config.evidence_tasks:
        return None
    if tokenizer is None:
        raise UserError(
            "--evidence-tasks needs a run on text, but this one is on token ids of "
            f"{type(source).__name__}: leave it out (of function-mixture the accuracy "
            "by shot of its own functions is measured always)"
        )
    bos_id = getattr(source, "bos_id", None)
    return draw_fewshot(
        config.evidence_tasks,
        tokenizer,
        bos=bos_id is not None and bos_id == tokenizer.bos_id,
        # No further than positions that training has seen.
        max_length=min(model_config.context_length, source.sequence_length),
        shots=config.evidence_shots,
        prompts=config.evidence_prompts,
        seed=config.evidence_seed,
    )


def figure_dims(name: str) -> tuple[str, ...]:
    """The axes of a figure of one model, by its name: () for a number."""
    return _DIMS.get(name, ())


def figure_unit(name: str) -> str:
    """The unit of a figure, by its name; "" of one that is not measured here."""
    if name in ("prefix_matching", "previous_token"):
        return "share of attention"
    if name == "copying":
        return "share of raised logits, mapped to -1 to 1"
    if name.startswith("total_variation"):
        return "total variation distance"
    if name.startswith(_NATS) or name.endswith("_loss"):
        return "nats"
    if "accuracy" in name or name.startswith("legal_next_symbol"):
        return "share"
    return ""
