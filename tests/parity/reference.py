"""Tiny random transformers models: what jaxheads must be equal to."""

# pyright: reportMissingImports=false

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from variants import Variant

UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight")
UNEMBEDDING = 2.5
"""Standard deviation of the logits of a normed stream: the largest are about 10."""


@dataclasses.dataclass
class Run:
    """What a model gave for a padded batch.

    Attributes:
        logits: [B, T, V].
        heads: z [L, B, T, H, K], before the output projection.
        patterns: [L, B, H, T, S].
    """

    logits: np.ndarray
    heads: np.ndarray
    patterns: np.ndarray


def random_model(variant: Variant, seed: int = 0) -> Any:
    """A float32 causal language model with large random weights.

    Norms' scales and all biases are random as well. Each weight is a float16 number, so
    that golden files can hold it in two bytes.

    Args:
        variant: settings and how large the weights are.
        seed: of the weights.
    """
    config = transformers.AutoConfig.for_model(**variant.settings)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            owner = model.get_submodule(name.rpartition(".")[0])
            noise = torch.randn(values.shape, generator=generator)
            random = _scaled(noise, name, values, owner, variant.gain)
            values.copy_(random.half().float())
    return model.eval()


def _scaled(
    noise: torch.Tensor, name: str, values: torch.Tensor, owner: Any, gain: float
) -> torch.Tensor:
    """Noise at the scale of the parameter that it becomes."""
    if name.endswith(".bias"):
        return 0.5 * noise
    if values.ndim == 1:  # a norm's scale, around what it is before training
        scale = values + 0.3 * noise
        return (
            gain * scale if name.endswith(("q_norm.weight", "k_norm.weight")) else scale
        )
    unembeds = isinstance(owner, torch.nn.Embedding) or name in UNEMBEDDINGS
    transposed = isinstance(owner, torch.nn.Linear | torch.nn.Embedding)
    fan_in = values.shape[1] if transposed else values.shape[0]
    return noise * (UNEMBEDDING if unembeds else gain) / math.sqrt(fan_in)


def save(model: Any, folder: Path) -> Path:
    """Write a model in hub layout, by transformers' own means."""
    model.save_pretrained(folder)
    return folder


def in_bfloat16(folder: Path) -> Any:
    """Load a saved model as its users do in bfloat16: rotary constants stay float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()


def in_float64(model: Any) -> Any:
    """A copy of a model in float64; run it inside ``float64_throughout``."""
    with float64_throughout():
        copy = transformers.AutoModelForCausalLM.from_config(
            model.config, dtype=torch.float64, attn_implementation="eager"
        )
        copy.load_state_dict(model.state_dict())
    return copy.eval()


@contextlib.contextmanager
def float64_throughout() -> Iterator[None]:
    """Let transformers compute in float64 where it says float32.

    Its norms, rotary phases and softmax are cast to float32 whatever the weights: here
    those names mean float64.
    """
    before = torch.get_default_dtype()
    with (
        mock.patch.object(torch, "float32", torch.float64),
        mock.patch.object(torch, "float", torch.float64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def output_projections(model: Any) -> list[Any]:
    """The modules, one a layer, whose input is all heads' outputs side by side."""
    if hasattr(model, "gpt_neox"):
        return [layer.attention.dense for layer in model.gpt_neox.layers]
    if hasattr(model, "transformer"):
        return [layer.attn.c_proj for layer in model.transformer.h]
    return [layer.self_attn.o_proj for layer in model.model.layers]


@contextlib.contextmanager
def _heads_replaced(
    model: Any,
    seen: list[np.ndarray],
    keep: np.ndarray | None,
    fill: np.ndarray | None,
    where: np.ndarray | None,
) -> Iterator[None]:
    """Hook the inputs of the output projections: note them, and replace heads.

    Args:
        model: to hook while the context lasts.
        seen: gets [B, T, H, K] of each layer, after the replacement.
        keep: bool [L, H], False is replaced; None: nothing is.
        fill: [L, H, K]; None: zeros.
        where: bool [B, T]; None: everywhere.
    """
    heads = model.config.num_attention_heads

    def hook(layer: int):
        def replace(module, inputs):
            del module
            z = inputs[0].unflatten(-1, (heads, -1)).clone()
            if keep is not None:
                new = np.zeros(z.shape[2:]) if fill is None else fill[layer]
                at = np.ones(z.shape[:2], bool) if where is None else where
                replaced = at[:, :, None, None] & ~keep[layer][:, None]
                z = torch.where(
                    torch.tensor(replaced), torch.tensor(new).to(z.dtype), z
                )
            seen.append(z.to(torch.promote_types(z.dtype, torch.float32)).numpy())
            return (z.flatten(-2), *inputs[1:])

        return replace

    hooks = [
        module.register_forward_pre_hook(hook(layer))
        for layer, module in enumerate(output_projections(model))
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@torch.no_grad()
def run(
    model: Any,
    tokens: np.ndarray,
    lengths: np.ndarray,
    keep: np.ndarray | None = None,
    fill: np.ndarray | None = None,
    where: np.ndarray | None = None,
) -> Run:
    """Run a model over a right-padded batch [B, T], with heads replaced if asked.

    A float64 model runs in float64 throughout; others as transformers runs them.
    """
    double = model.dtype == torch.float64
    mask = np.arange(tokens.shape[1])[None] < lengths[:, None]
    heads: list[np.ndarray] = []
    with (
        float64_throughout() if double else contextlib.nullcontext(),
        _heads_replaced(model, heads, keep, fill, where),
    ):
        out = model(
            torch.tensor(tokens),
            attention_mask=torch.tensor(mask, dtype=torch.int64),
            output_attentions=True,
            use_cache=False,
        )
    wide = torch.float64 if double else torch.float32
    return Run(
        out.logits.to(wide).numpy(),
        np.stack(heads),
        np.stack([pattern.to(wide).numpy() for pattern in out.attentions]),
    )


@torch.no_grad()
def continued(model: Any, prompts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Greedy continuations by transformers' ``generate``: [prompts, count].

    Prompts of one length go together, so that none is padded.
    """
    model.generation_config.eos_token_id = None
    out = np.zeros((len(prompts), count), np.int64)
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        tokens = torch.tensor(np.stack([prompts[i] for i in rows]))
        out[rows] = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=count,
            pad_token_id=0,
        ).numpy()[:, length:]
    return out
