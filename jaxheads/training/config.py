"""What can be chosen in training; light to import, for the command line."""

import dataclasses
import math
from typing import Any, Literal

from jaxheads.errors import UserError, check_counts

Objective = Literal["vanilla", "hapax", "hapax-thresholded", "offset", "repeat"]


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """The model that is trained, with new random params."""

    model: str = "toy"
    """A family, toy (attention only), gpt2, gpt_neox, llama, ...; or the sizes of a
    name that `jaxheads models` lists, or of a config.json."""
    layers: int = 2
    """Of a family."""
    width: int = 64
    """Of a family: of the residual stream."""
    heads: int = 4
    """Of a family: a layer, which share the width."""
    settings: tuple[str, ...] = ()
    """Further fields of the family's Config, such as mlp_width=256 smeared_keys=true
    positions=rotary; an MLP is 4 times the width but in toys, which have none."""


@dataclasses.dataclass(frozen=True)
class DataChoice:
    """What it is trained on."""

    data: str = "repeats"
    """repeats: random tokens with a random period; successors, function-mixture,
    languages: see jaxheads.training.data; or text: .txt, .jsonl, .parquet, a folder."""
    data_settings: tuple[str, ...] = ()
    """Fields of the source, such as vocab_size=64 sequence_length=128 of repeats, or
    held_out=0.05 separate=true of text."""
    tokenizer: str | None = None
    """Of text: a model whose tokenizer reads it; default: one that is learned from the
    text."""
    vocab_size: int = 4096
    """Of the tokenizer that is learned."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that decides the numbers of a training run, besides model and data."""

    objective: Objective = "vanilla"
    """Which targets lose their loss: hapax: those that end a repeated pair of tokens;
    offset: those after a repeated token; repeat: repeated tokens."""
    threshold: float = 0.3
    """Of hapax-thresholded: tokens whose embeddings' cosine is above it are equal."""
    divide_by: Literal["kept", "all"] = "kept"
    """What the summed loss is divided by: the kept targets, or all scored ones."""
    z_loss: float = 0.0
    """Weight of the squared log normaliser, which keeps logits small."""
    steps: int = 1000
    """Updates."""
    batch_size: int = 16
    """Windows an update."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other; the update is the same,
    the memory smaller."""
    learning_rate: float = 3e-3
    """Largest, after the warm-up."""
    warmup: int = 20
    """Steps of the linear warm-up."""
    final_share: float = 0.1
    """Of the learning rate that the cosine ends at; 1: it stays constant."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.95
    """Adam's decay of the mean squared gradient."""
    epsilon: float = 1e-8
    """Adam's addition to the root of the mean squared gradient."""
    weight_decay: float = 0.01
    """Of matrices, relative to the learning rate; never of norms and biases."""
    decay_embeddings: bool = False
    """Of token and position embeddings, too."""
    clip: float = 1.0
    """Largest norm of all gradients together; 0: no limit."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model is computed; params and optimiser are float32."""
    rematerialise: bool = False
    """Compute each layer's activations a second time instead of keeping them."""
    seed: int = 0
    """Of the initial params and of the order of the data."""
    seeds: int = 1
    """Runs side by side in one program, of the seeds seed, seed + 1, ..."""
    eval_every: int = 100
    """Steps between two evaluations: held-out loss and evidence; 0: none."""
    eval_batches: int = 4
    """Batches of the held-out loss."""
    checkpoints: tuple[str, ...] = ("powers",)
    """Steps whose model is kept: powers (of two), every=100, or step numbers; the first
    and the last step always."""
    keep_last: int = 0
    """How many checkpoints stay, the latest ones; 0: all."""
    dense_every: int = 0
    """Further checkpoints this many steps apart while --dense-by moves fast; 0: none"""
    dense_by: str = "loss"
    """What is watched: the loss, or the name of an evidence."""
    dense_change: float = 0.2
    """How far it must move: the loss from one window of --dense-window steps to the
    next, an evidence from one evaluation to the next."""
    dense_window: int = 25
    """Steps of a window of the loss."""
    resume_every: int = 500
    """Steps between two states to go on from, besides those of checkpoints."""

    def seed_numbers(self) -> tuple[int, ...]:
        """The seed of each of the runs side by side."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def learning_rate_at(self, step: Any) -> Any:
        """The learning rate of an update, from 0 on; a number or an array of jax.

        ``peak * min((step + 1) / warmup, 1)``, times a cosine from 1 to ``final_share``
        between the end of the warm-up and the last step.
        """
        if isinstance(step, int):
            least, largest, cosine = min, max, math.cos
        else:
            import jax.numpy as jnp

            least, largest, cosine = jnp.minimum, jnp.maximum, jnp.cos
        risen = least((step + 1) / max(self.warmup, 1), 1.0)
        after = largest(step + 1 - self.warmup, 0) / max(self.steps - self.warmup, 1)
        fallen = 0.5 * (1 + cosine(math.pi * least(after, 1.0)))
        share = self.final_share + (1 - self.final_share) * fallen
        return self.learning_rate * risen * share

    def check(self) -> None:
        """Raise UserError unless the choices make sense, whatever model and data."""
        from jaxheads.training.schedule import fixed_steps

        check_counts(
            ("--batch-size", self.batch_size, 1),
            ("--accumulate", self.accumulate, 1),
            ("--seeds", self.seeds, 1),
            ("--eval-batches", self.eval_batches, 1),
        )
        check_counts(
            ("--steps", self.steps, 1),
            ("--warmup", self.warmup, 0),
            ("--eval-every", self.eval_every, 0),
            ("--keep-last", self.keep_last, 0),
            ("--dense-every", self.dense_every, 0),
            ("--dense-window", self.dense_window, 1),
            ("--resume-every", self.resume_every, 1),
            most=10**9,
        )
        check_counts(
            ("--seed", self.seed, 0),
            ("--clip", self.clip, 0),
            ("--weight-decay", self.weight_decay, 0),
            ("--z-loss", self.z_loss, 0),
            most=math.inf,
        )
        for name, value in (
            ("--learning-rate", self.learning_rate),
            ("--epsilon", self.epsilon),
            ("--dense-change", self.dense_change),
        ):
            if not 0 < value < math.inf:
                raise UserError(f"{name} must be above 0, but is {value}")
        for name, value in (("--beta1", self.beta1), ("--beta2", self.beta2)):
            if not 0 <= value < 1:
                raise UserError(f"{name} must be from 0 to below 1, but is {value}")
        if not 0 <= self.final_share <= 1:
            raise UserError(
                f"--final-share must be from 0 to 1, but is {self.final_share}"
            )
        if not -1 <= self.threshold < 1:
            raise UserError(
                f"--threshold must be a cosine below 1, but is {self.threshold}"
            )
        if self.batch_size % self.accumulate:
            raise UserError(
                f"--accumulate must divide --batch-size {self.batch_size}, but is "
                f"{self.accumulate}"
            )
        fixed_steps(self.checkpoints, self.steps)
