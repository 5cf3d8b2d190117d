"""Windows with tasks that copying solves and tasks that it cannot: hapax vs vanilla.

Three kinds of blocks follow each other in a window:

- *text*: a Markov chain over the text tokens, each with a few successors.
- *copying*: random text tokens that repeat with a random period within the block.
- *function*: pairs ``x f(x)`` with one function f a window. f is one of a family that
  is the same throughout training (and in every stream), so it can be known by heart;
  which one it is, only the pairs before tell. No input comes twice in a window, and
  functions are one-to-one: an answer has occurred nowhere in the window, neither after
  its x nor anywhere else, so no copying of any kind gives it.

Inputs, answers and text have token ids of their own: [0, I) inputs, [I, 2 I) answers,
[2 I, 2 I + X) text, and BOS last if there is one. So a block tells its kind, and the
bigram ``x f(x)`` cannot occur by chance.

An objective such as hapax drops the targets that complete a bigram seen before: most
of the copying blocks, some text, no answer. Vanilla training gets both. Accuracy on
"answer" targets with "shot" 1 or more (a first answer is a guess: 1 in the size of the
family), against accuracy on "copyable" targets of copying blocks, is the figure that
tells the two apart.
"""

import dataclasses
import functools
import zlib
from typing import Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.prompts import CORRUPTIONS, Batch, label_order
from jaxheads.training.data.windows import (
    Generator,
    Windows,
    check_at_least,
    check_batch,
    check_range,
    integers,
    seen_bigrams,
    uniforms,
    without_replacement,
)

TEXT, COPYING, FUNCTION = 0, 1, 2
"""Values of "kind" in the information about windows."""

_NAME = "function mixture"


@dataclasses.dataclass(frozen=True)
class FunctionMixture(Generator):
    """Blocks of text, of copying, and of pairs of a function; see the module.

    Attributes:
        sequence_length: targets in a window, T.
        inputs: input tokens, I; as many answers. When a window has used all of them,
            further function blocks are text.
        shifts: functions of the family that are shifts: answer (x + s) mod I for s = 1,
            2, ...
        tables: functions of the family that are random permutations.
        text_tokens: X.
        successors: of each text token in the Markov chain; the k-th is taken with
            probability proportional to 1 / k.
        shortest_block: tokens of a block at least; blocks are of even length.
        longest_block: tokens of a block at most.
        shortest_period: of copying, at least.
        longest_period: of copying, at most.
        text_share: probability that a block is text.
        copying_share: that it is copying; otherwise it is a function block.
        bos: whether a token that occurs nowhere else begins every window.
        seed: of the draws, of the tables and of the chain.

    ``info`` of its windows, bool or int8 [B, T]: "kind" of the block (TEXT, COPYING,
    FUNCTION); "answer", targets that are f(x); "shot", pairs before an answer, or -1;
    "copyable", targets that complete a bigram seen before in the window; "plain",
    neither answer nor copyable. And "function" [B], which of the family.
    """

    sequence_length: int = 64
    inputs: int = 16
    shifts: int = 0
    tables: int = 3
    text_tokens: int = 64
    successors: int = 8
    shortest_block: int = 8
    longest_block: int = 24
    shortest_period: int = 3
    longest_period: int = 8
    text_share: float = 0.2
    copying_share: float = 0.4
    bos: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(2, sequence_length=self.sequence_length, inputs=self.inputs)
        check_at_least(2, text_tokens=self.text_tokens)
        check_at_least(0, shifts=self.shifts, tables=self.tables)
        check_at_least(1, successors=self.successors)
        check_range(
            "shortest_block", self.shortest_block, "longest_block", self.longest_block
        )
        check_range(
            "shortest_period",
            self.shortest_period,
            "longest_period",
            self.longest_period,
        )
        for name in ("shortest_block", "longest_block"):
            if getattr(self, name) % 2:
                raise UserError(
                    f"{name} must be even, for pairs, but is {getattr(self, name)}: "
                    "give an even number"
                )
        if self.shifts + self.tables < 1 or self.shifts >= self.inputs:
            raise UserError(
                f"shifts and tables must give 1 function or more and fewer shifts than "
                f"the {self.inputs} inputs, but are {self.shifts} and {self.tables}: "
                "give others"
            )
        if self.successors > self.text_tokens:
            raise UserError(
                f"successors must be at most text_tokens {self.text_tokens}, but is "
                f"{self.successors}: give fewer"
            )
        shares = (self.text_share, self.copying_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise UserError(
                f"text_share and copying_share must be 0 or more and at most 1 "
                f"together, but are {shares[0]} and {shares[1]}: give others"
            )

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return 2 * self.inputs + self.text_tokens + self.bos

    @functools.cached_property
    def functions(self) -> np.ndarray:
        """The family: the answer's number by function and input, [shifts + tables, I].

        The answer's token is I more.
        """
        x = np.arange(self.inputs)
        shifted = (x + np.arange(1, self.shifts + 1)[:, None]) % self.inputs
        draws = uniforms(f"{_NAME}, tables", self.seed, 0, 0, self.tables, self.inputs)
        return np.concatenate([shifted, without_replacement(draws, self.inputs)])

    @functools.cached_property
    def chain(self) -> np.ndarray:
        """The successors of each text token, commonest first, [X, successors]."""
        draws = uniforms(
            f"{_NAME}, chain", self.seed, 0, 0, self.text_tokens, self.successors
        )
        return without_replacement(draws, self.text_tokens)

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """See ``Source``."""
        check_batch(index, size)
        length = self.sequence_length + 1 - self.bos
        blocks = -(-length // self.shortest_block)
        counts = (1, self.inputs, length, length, blocks, blocks, blocks)
        every = uniforms(_NAME, self.seed, stream, index * size, size, sum(counts))
        which, order, random, steps, kinds, lengths, periods = np.split(
            every, np.cumsum(counts)[:-1], axis=1
        )
        kind, offset, period = self._layout(kinds, lengths, periods, length)
        # Text everywhere; copying and pairs are written over it.
        content = self._text(steps)
        copied = integers(random, 0, self.text_tokens - 1)
        start = np.arange(length) - offset
        source = start + offset % period
        copied = np.take_along_axis(copied, source, axis=1)
        content = np.where(kind == COPYING, copied, content) + 2 * self.inputs

        half = offset % 2
        number = np.cumsum((kind == FUNCTION) & (half == 0), axis=1) - 1  # of the pair
        used_up = number >= self.inputs
        paired = (kind == FUNCTION) & ~used_up
        kind = np.where((kind == FUNCTION) & used_up, TEXT, kind)
        x = np.take_along_axis(
            without_replacement(order, self.inputs),
            np.clip(number, 0, self.inputs - 1),
            axis=1,
        )
        function = integers(which[:, 0], 0, len(self.functions) - 1)
        y = self.functions[function[:, None], x] + self.inputs
        tokens = np.where(paired, np.where(half == 0, x, y), content)
        answer = paired & (half == 1)
        shot = np.where(answer, number, -1)
        if self.bos:
            tokens = np.insert(tokens, 0, self.vocab_size - 1, axis=1)
        else:
            kind, answer, shot = (each[:, 1:] for each in (kind, answer, shot))
        tokens = tokens.astype(np.int32)
        copyable = seen_bigrams(tokens)
        return Windows(
            tokens,
            None,
            np.ones((size, self.sequence_length), bool),
            {
                "kind": kind.astype(np.int8),
                "answer": answer,
                "shot": shot.astype(np.int16),
                "copyable": copyable,
                "plain": ~answer & ~copyable,
                "function": function,
            },
        )

    def _layout(
        self, kinds: np.ndarray, lengths: np.ndarray, periods: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kind, offset in its block and period of copying of each position, [B, N]."""
        kind = np.searchsorted(
            np.cumsum([self.text_share, self.copying_share]), kinds, side="right"
        )
        halves = integers(lengths, self.shortest_block // 2, self.longest_block // 2)
        ends = np.cumsum(2 * halves, axis=1)
        starts = ends - 2 * halves
        period = integers(periods, self.shortest_period, self.longest_period)
        rows = np.arange(len(ends))[:, None]
        begins = np.zeros((len(ends), length + 1), np.int64)
        begins[rows, np.minimum(starts, length)] = 1  # column N: beyond the window
        block = np.cumsum(begins[:, :length], axis=1) - 1
        offset = np.arange(length) - np.take_along_axis(starts, block, axis=1)
        return kind[rows, block], offset, period[rows, block]

    def _text(self, steps: np.ndarray) -> np.ndarray:
        """The Markov chain's tokens, from 0 to X - 1, [B, N]."""
        weights = 1 / np.arange(1, self.successors + 1)
        bounds = np.cumsum(weights / weights.sum())[:-1]
        choice = np.searchsorted(bounds, steps, side="right")
        tokens = np.empty(steps.shape, np.int64)
        tokens[:, 0] = integers(steps[:, 0], 0, self.text_tokens - 1)
        for position in range(1, steps.shape[1]):
            tokens[:, position] = self.chain[
                tokens[:, position - 1], choice[:, position]
            ]
        return tokens


# Each use of randomness has a number of its own, so that none shifts another.
_INPUTS, _LABELS = range(2)
PURPOSES = ("scoring", "evaluation")


def task_names(source: FunctionMixture) -> tuple[str, ...]:
    """The functions in the family's order: "shift-1", ..., "table-1", ..."""
    shifts = [f"shift-{step}" for step in range(1, source.shifts + 1)]
    return (*shifts, *(f"table-{i}" for i in range(1, source.tables + 1)))


def most_shots(source: FunctionMixture, context_length: int) -> int:
    """How many demonstrations and a query fit into a window and the model's context."""
    length = min(source.sequence_length, context_length) - source.bos
    return min(source.inputs - 1, (length - 1) // 2)


def draw_prompts(
    source: FunctionMixture,
    task: str,
    count: int,
    shots: int,
    seed: int,
    *,
    corrupt: str | None = None,
    purpose: Literal["scoring", "evaluation"] = "scoring",
) -> Batch:
    """Draw prompts of one function.

    Every draw depends on the seed, the task, the purpose and the prompt's number alone:
    clean and corrupted prompts of one purpose differ in their labels only.

    Args:
        source: of the functions.
        task: one of ``task_names``.
        count: prompts, B.
        shots: demonstrations, n.
        seed: 0 or more.
        corrupt: None, "permutation" (uniform over all, the identity included) or
            "derangement" of the demonstrations' answers.
        purpose: other prompts for each.

    Returns:
        Tokens [B, T] with T = BOS + 2 n + 1, all of one length; the targets are the
        right answers.

    Raises:
        UserError: an unknown task or corruption, or more demonstrations than inputs.
    """
    names = task_names(source)
    if task not in names:
        raise UserError(
            f"a task of the function mixture is one of {', '.join(names)}, not {task!r}"
        )
    if corrupt not in (None, *CORRUPTIONS) or (corrupt == "derangement" and shots < 2):
        raise UserError(
            "labels are moved by a permutation, or by a derangement of 2 or more, not "
            f"by {corrupt!r} of {shots}: give another"
        )
    if not 0 <= shots < source.inputs:
        raise UserError(
            f"demonstrations and a query must be different ones of the "
            f"{source.inputs} inputs, but there are {shots} and 1: ask for fewer shots"
        )
    function = source.functions[names.index(task)]
    key = [seed, zlib.crc32(f"function mixture {task}".encode())]
    rows, targets = [], []
    for index in range(count):
        stage = [*key, PURPOSES.index(purpose), index]
        rng = np.random.default_rng([*stage, _INPUTS])
        *shown, query = rng.choice(source.inputs, shots + 1, replace=False)
        shown = np.array(shown, int)
        order = label_order(shots, corrupt, np.random.default_rng([*stage, _LABELS]))
        answers = function[shown[order]] + source.inputs
        pairs = np.stack([shown, answers], axis=1).ravel()
        begin = [source.vocab_size - 1] if source.bos else []
        rows.append([*begin, *pairs, query])
        targets.append(function[query] + source.inputs)
    tokens = np.array(rows, np.int32)
    lengths = np.full(count, tokens.shape[1], np.int32)
    return Batch(tokens, lengths, np.array(targets, np.int32))


def unchanged_share(clean: Batch, corrupted: Batch, source: FunctionMixture) -> float:
    """Share of demonstrations of corrupted prompts that show their own answer."""
    answers = (slice(None), slice(int(source.bos) + 1, None, 2))
    return float((clean.tokens[answers] == corrupted.tokens[answers]).mean())
