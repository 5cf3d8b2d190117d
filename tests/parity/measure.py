"""What transformers gives for a model, as a ``Case``."""

# pyright: reportMissingImports=false

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from reference import Run, continued, in_bfloat16, in_float64, run
from reference_case import Case, Inputs, distance

NEW_TOKENS = 8
LONGEST_PROMPT = 20


def draw(
    config: Any, length: int, full_lengths: tuple[int, ...], prompts: int, seed: int = 1
) -> Inputs:
    """Random inputs for a model.

    Args:
        config: transformers' own.
        length: T, of all rows with their padding.
        full_lengths: of the rows that are compared in full.
        prompts: how many more rows, of 1 to 20 tokens, are continued.
        seed: of tokens, ablations and fills.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST_PROMPT + 1, prompts)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    rows = len(full_lengths) + prompts
    return Inputs(
        tokens=rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32),
        lengths=np.concatenate([full_lengths, lengths]).astype(np.int32),
        full=len(full_lengths),
        keep=rng.random((config.num_hidden_layers, heads)) > 0.5,
        fill=rng.normal(size=(config.num_hidden_layers, heads, width)).astype("f4"),
        where=rng.random((rows, length)) > 0.5,
    )


def measure(model: Any, folder: Path, inputs: Inputs) -> Case:
    """Run transformers in three precisions, with heads replaced, and greedily.

    Args:
        model: float32.
        folder: where the model is saved, to be loaded in bfloat16.
        inputs: for all of it.
    """
    tokens, lengths, full = inputs.tokens, inputs.lengths, inputs.full
    fill, where = inputs.fill, inputs.where[:full]
    last = (np.arange(tokens.shape[1])[None] == lengths[:, None] - 1)[:full]

    def ablated(fill: np.ndarray | None, where: np.ndarray | None) -> np.ndarray:
        out = run(model, tokens[:full], lengths[:full], inputs.keep, fill, where)
        return out.logits

    plain, exact = run(model, tokens, lengths), run(in_float64(model), tokens, lengths)
    half = run(in_bfloat16(folder), tokens, lengths)
    prompts = [row[:n] for row, n in zip(tokens[full:], lengths[full:], strict=True)]
    results, exact_results = _laid_out(inputs, plain), _laid_out(inputs, exact)
    return Case(
        **{f.name: getattr(inputs, f.name) for f in dataclasses.fields(inputs)},
        config=(folder / "config.json").read_text(encoding="utf-8"),
        **results,
        logits64=exact_results["logits"],
        zeros_everywhere=inputs.at(ablated(None, None)),
        fill_somewhere=inputs.at(ablated(fill, where)),
        zeros_last=ablated(None, last)[last],
        fill_last=ablated(fill, last)[last],
        continued=continued(model, prompts, NEW_TOKENS),
        bfloat16_error=inputs.error(half.logits, exact.logits),
        noise=np.array(
            [distance(results[name], exact_results[name]) for name in results]
        ),
    )


def _laid_out(inputs: Inputs, out: Run) -> dict[str, Any]:
    """Logits, heads and patterns of a run as a case lays them out."""
    return {
        "logits": inputs.at(out.logits),
        "heads": inputs.heads_at(out.heads),
        "patterns": inputs.patterns_at(out.patterns),
    }
