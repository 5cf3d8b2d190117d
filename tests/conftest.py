"""Strict JAX settings for every test, and a small random model with distinct dims."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from model_folder import write_folder
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxheads.icl.tasks import load_tasks
from jaxheads.models import llama
from jaxheads.models.parameters import init_params

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

CONFIGS = {
    "gqa": llama.Config(3, 22, 6, 2, 10, 34, 41, 64, tied=True),
    "mha": llama.Config(5, 26, 3, 3, 8, 38, 43, 64, rope_theta=500.0),
    "mqa": llama.Config(2, 18, 4, 1, 12, 30, 37, 64),
}
"""Pairwise distinct dims, so that a swapped axis cannot pass."""


class Tiny:
    """A random model with large weights, and a padded batch of prompts for it."""

    def __init__(self, config: llama.Config):
        self.config = config
        # Five times the usual weights: attention is sharp and errors are visible.
        self.params = init_params(llama.abstract(config), jax.random.key(0), scale=2.5)
        rng = np.random.default_rng(1)
        self.lengths = jnp.array([13, 7, 1, 10])
        self.tokens = jnp.asarray(
            rng.integers(0, config.vocab_size, (4, 13)), jnp.int32
        )
        self.targets = jnp.asarray(rng.integers(0, config.vocab_size, 4), jnp.int32)
        shape = (config.num_layers, config.num_heads, config.head_dim)
        self.fill = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def keep(self, seed: int, count: int | None = None) -> jax.Array:
        """Random 0/1 keeps, [L, H] or [N, L, H]."""
        shape = (self.config.num_layers, self.config.num_heads)
        shape = shape if count is None else (count, *shape)
        rng = np.random.default_rng(seed)
        return jnp.asarray(rng.random(shape) > 0.4, jnp.float32)

    @property
    def last(self) -> jax.Array:
        """Bool [B, T], True at each prompt's last position."""
        return jnp.arange(self.tokens.shape[1])[None] == self.lengths[:, None] - 1


@pytest.fixture(params=sorted(CONFIGS), scope="session")
def tiny(request) -> Tiny:
    """Each tiny model in turn."""
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="session")
def tiny_gqa() -> Tiny:
    """The tiny model with grouped queries and a tied unembedding."""
    return Tiny(CONFIGS["gqa"])


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny random Llama in hub layout, with a tokenizer trained on the tasks."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    lines = [
        f"Q: {given}\nA: {wanted}\n\n"
        for task in load_tasks(None)
        for given, wanted in zip(task.inputs, task.outputs, strict=True)
    ]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=alphabet,
            special_tokens=["<s>"],
            show_progress=False,
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    config = llama.Config(3, 22, 6, 2, 10, 34, 600, 512, tied=True)
    params = init_params(llama.abstract(config), jax.random.key(7), scale=2.0)
    return write_folder(folder, config, params)
