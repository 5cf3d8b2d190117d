"""What is not what it seems is refused before anything is compiled, in all families."""

# pyright: reportArgumentType=false, reportCallIssue=false
# What is given here is wrong on purpose.

import dataclasses
import logging
from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

import jaxheads as jh
from jaxheads import heads
from jaxheads.engine import fills, sweeps
from jaxheads.errors import UserError
from jaxheads.models import llama
from jaxheads.models.ablation import Ablation, StopGradient
from jaxheads.models.addition import Addition
from jaxheads.models.forward import heads_under
from jaxheads.models.removal import remove_each_head
from jaxheads.models.resuming import Clean, resume, run_clean
from jaxheads.models.rope import Rope
from jaxheads.models.steering import steer

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def gqa() -> Tiny:
    return Tiny(CONFIGS["llama-gqa"])


@pytest.fixture(scope="module")
def prefix(gqa):
    return jh.prefill(gqa.params, gqa.tokens, gqa.lengths, gqa.config)


@pytest.fixture(scope="module")
def clean(gqa):
    return np.asarray(jh.forward(gqa.params, gqa.tokens, gqa.config).logits)


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def keep_of(config):
    return np.ones((config.num_layers, config.num_heads), np.float32)


TOKENS = np.ones((2, 5), np.int32)
CLEAN = Clean(*[np.zeros((2, 2, 5, 1, 1))] * 5)
RUNS = {
    "forward": lambda c, x: jh.forward(None, TOKENS, c, ablation=x),
    "prefill": lambda c, x: jh.prefill(None, TOKENS, None, c, ablation=x),
    "last_token_logits": lambda c, x: jh.last_token_logits(
        None,
        None,
        c,
        x,
    ),
    "generate": lambda c, x: jh.generate(None, ONE, c, 1, x),
    "heads_under": lambda c, x: heads_under(None, TOKENS, c, x),
    "resume": lambda c, x: resume(None, CLEAN, c, x, np.zeros((2, 1), int)),
}
"""Every function that takes an ablation; params are None, nothing is run."""
ONE = jh.Prefix(*[np.ones(2, np.int32)] * 9)
Pair = namedtuple("Pair", "keep fill")
NOT_ABLATIONS = {
    "numpy": keep_of,
    "jax": lambda c: jnp.asarray(keep_of(c)),
    "bool": lambda c: keep_of(c) > 0,
    "pairs": lambda c: [(1, 2)],
    "dict": lambda c: {"1.2": None},
    "keep and fill": lambda c: (keep_of(c), None),
    "named tuple": lambda c: Pair(Ablation(keep_of(c)), None),
    "name": lambda c: "1.2",
    "names": lambda c: ["1.2", "0.1"],
    "nested": lambda c: [[Ablation(keep_of(c))]],
    "none inside": lambda c: (None, Ablation(keep_of(c))),
    "a class": lambda c: Ablation,
}


@pytest.mark.parametrize("run", RUNS)
def test_what_is_no_ablation_is_refused_by_every_run_of_every_family(config, run):
    for make in NOT_ABLATIONS.values():
        with pytest.raises(TypeError, match=r"an ablation is .* jh\.Ablation\.of"):
            RUNS[run](config, make(config))


@pytest.mark.parametrize("run", RUNS)
def test_arrays_of_ablations_are_what_they_say(config, run):
    shape, where = (config.num_layers, config.num_heads), np.ones((2, 5))
    keep, width = keep_of(config), config.width
    vector, layers = np.ones(width, np.float32), np.ones(shape[0], np.float32)
    fill = np.full((*shape, config.head_dim), np.nan, np.float32)
    fill[0, 0] = 0
    for ablation, kind, said in (
        (Ablation(keep.tolist()), TypeError, "ablation.keep must be an array"),
        (Ablation(None), TypeError, "ablation.keep must be an array"),
        (Ablation(keep * np.nan), ValueError, r"ablation.keep\[0, 0\] is nan"),
        (Ablation(keep, fill), ValueError, r"ablation.fill\[0, 1, 0\] is nan"),
        (Ablation(keep, jnp.asarray(fill)), ValueError, "ablation.fill must be finite"),
        (Ablation(keep, keep > 0), TypeError, "ablation.fill must be float, but is b"),
        (Ablation(keep, keep.tolist()), TypeError, "ablation.fill must be an array"),
        (Ablation(keep, None, where), TypeError, "ablation.where must be bool"),
        (Ablation(keep, None, None, "out"), ValueError, "ablation.site must be one of"),
        (StopGradient([1.0]), TypeError, "layers of a StopGradient must be an array"),
        (Addition(vector.tolist(), layers), TypeError, "addition.vector must be an"),
        (Addition(vector * np.inf, layers), ValueError, r"addition.vector\[0\] is inf"),
        (Addition(vector, layers, where), TypeError, "addition.where must be bool"),
        (Ablation.of(f"{shape[0]}.0"), ValueError, f"layers 0 to {shape[0] - 1} with"),
        (Ablation.of(f"0.{shape[1]}"), ValueError, f"heads 0 to {shape[1] - 1}"),
        (Ablation.of("first"), ValueError, r"a head is written .layer\.head."),
    ):
        with pytest.raises(kind, match=said):
            RUNS[run](config, [StopGradient(layers), ablation])


def test_names_at_keys_and_values_are_of_their_heads(gqa):
    inside, beyond = Ablation.of("0.1", site="v"), Ablation.of("0.2", site="v")
    keep = np.ones((3, 2), np.float32)
    keep[0, 1] = 0
    run = lambda ablation: (
        jh.forward(gqa.params, gqa.tokens, gqa.config, ablation=ablation).logits
    )
    assert_close(run(inside), run(Ablation(keep, site="v")), 0)
    with pytest.raises(ValueError, match=r"head 0\.2 is out of range.* heads 0 to 1"):
        run(beyond)


def test_a_set_of_heads_goes_and_all_others_stay(gqa, prefix, clean):
    """By names, by masks of numpy and jax, one by one and many at once."""
    keep = np.ones((3, 6), np.float32)
    keep[1, 2] = keep[2, 0] = 0
    run = lambda ablation: (
        jh.forward(gqa.params, gqa.tokens, gqa.config, ablation=ablation).logits
    )
    expected = run(Ablation(keep, gqa.fill))
    assert np.abs(expected - clean).max() > 0.1
    replaced = heads.parse_heads(["1.2", "2.0"], (3, 6))
    for given in (
        (replaced,),
        (jnp.asarray(replaced),),
        ("1.2", "2.0"),
        (["2.0", "1.2"],),
        (("1.2",), "2.0", "1.2"),
    ):
        ablation = Ablation.of(*given, fill=gqa.fill)
        np.testing.assert_array_equal(run(ablation), expected)
        np.testing.assert_array_equal(jax.jit(run)(ablation), expected)
    sets = np.stack([replaced, ~replaced, replaced & False])
    many = jax.vmap(lambda heads: run(Ablation.of(heads, fill=gqa.fill)))(sets)
    assert_close(many[0], expected)
    assert_close(many[2], clean)
    together = jax.vmap(lambda a: run(Ablation(a.keep, gqa.fill)))(Ablation.of(sets))
    assert_close(together, many)
    at_last = np.asarray(gqa.lengths) - 1
    there = Ablation.of("1.2", "2.0", fill=gqa.fill, where=gqa.last)
    assert_close(
        jh.last_token_logits(
            gqa.params, prefix, gqa.config, dataclasses.replace(there, where=None)
        ),
        np.asarray(run(there))[np.arange(4), at_last],
    )
    np.testing.assert_array_equal(run(Ablation.of([])), clean)


def test_names_do_not_compile_anew(gqa, caplog):
    run = lambda ablation: jh.forward(
        gqa.params, gqa.tokens, gqa.config, ablation=ablation
    )
    run(Ablation.of("0.0"))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(Ablation.of("2.5", "1.1"))
        run([Ablation.of(np.zeros((3, 6), bool))])
    assert not caplog.records
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(Ablation.of("0.0", site="q"))
    assert caplog.records


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "but nothing was given"),
        ((np.ones((3, 6)),), "replaced must be bool .* but is float64"),
        ((np.ones((3, 6), int),), "replaced must be bool .* but is int64"),
        ((jnp.ones((3, 6)),), "replaced must be bool .* but is float32"),
        (((1, 2),), 'names such as "18.6".* but tuple was given'),
        (([[True, False]],), "but list was given"),
        (("1.2", np.ones((3, 6), bool)), "but str, ndarray was given"),
        ((1.5,), "but float was given"),
    ],
)
def test_a_set_of_heads_is_names_or_bool(given, said):
    with pytest.raises(TypeError, match=said):
        Ablation.of(*given)


def test_a_bool_keep_is_refused_with_its_polarity():
    mask = np.zeros((3, 6), bool)
    for make in (Ablation, jax.jit(Ablation), jax.vmap(Ablation)):
        for array in (mask, jnp.asarray(mask)):
            with pytest.raises(TypeError, match=r"1 where a head stays.*Ablation\.of"):
                make(array)
    with pytest.raises(TypeError, match="True where a head is replaced"):
        dataclasses.replace(Ablation(np.ones((3, 6))), keep=mask)
    # Trees of other things are no ablations, and pass.
    ablation = Ablation(np.ones((3, 6)), where=mask)
    marks = jax.tree.map(lambda leaf: object(), ablation)
    assert jax.tree.structure(marks) == jax.tree.structure(ablation)
    assert jax.tree.map(lambda leaf: True, ablation).keep is True
    assert jax.tree.leaves(Ablation.of("1.2")) == []


BAD_TOKENS = {
    "too large": ([[1, 2, 3, "V"]], ValueError, r"tokens\[0, 3\] is {V}.* 0 to {last}"),
    "negative": ([[1, 2], [-1, 3]], ValueError, r"tokens\[1, 0\] is -1"),
    "none": ([[], []], ValueError, "one token or more"),
    "long": (np.zeros((1, 65), int), ValueError, "context is 64"),
    "one row": ([1, 2, 3], ValueError, r"int \[B, T\], but has shape \(3,\)"),
    "floats": (np.ones((1, 3)), TypeError, r"int \[B, T\], but is float64"),
    "bools": (np.ones((1, 3), bool), TypeError, r"int \[B, T\], but is bool"),
}


def run_on(config, tokens) -> dict:
    """Every public function that reads tokens."""
    at = np.zeros((1, 1), int)
    sets = np.zeros((1, config.num_layers, config.num_heads), bool)
    given = (None, tokens, config)
    return {
        "forward": lambda: jh.forward(*given),
        "prefill": lambda: jh.prefill(None, tokens, None, config),
        "heads_under": lambda: heads_under(*given, None),
        "run_clean": lambda: run_clean(*given),
        "remove_each_head": lambda: remove_each_head(None, tokens, at, at, config),
        "metric_under_subsets": lambda: sweeps.metric_under_subsets(
            None, tokens, np.ones(1, int), at[0], config, sets, None, chunk=1
        ),
        "generate_under_subsets": lambda: sweeps.generate_under_subsets(
            None, tokens, np.ones(1, int), config, sets, None, 1, chunk=1
        ),
        "sweep_under_subsets": lambda: sweeps.sweep_under_subsets(
            *given, sets, None, at, at, chunk=1
        ),
        "losses_under_subsets": lambda: sweeps.losses_under_subsets(
            *given, sets, None, at[0] + 1, chunk=1
        ),
        "mean": lambda: fills.mean(None, tokens, None, config),
        "resampled": lambda: fills.resampled(
            None, tokens, None, config, np.random.default_rng(0)
        ),
    }


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_tokens_that_a_model_does_not_have_are_refused_with_their_place(config, kind):
    tokens, error, said = BAD_TOKENS[kind]
    v = config.vocab_size
    said = said.replace("{V}", str(v)).replace("{last}", str(v - 1))
    if isinstance(tokens, list):
        lists = (
            [[v if id == "V" else id for id in row] for row in tokens]
            if isinstance(tokens[0], list)
            else tokens
        )
        tokens = np.array(lists, np.int32)
        with pytest.raises(TypeError, match=r"tokens must be an array.*np\.array"):
            jh.forward(None, lists, config)
    for given in (tokens, jnp.asarray(tokens)):
        for run in run_on(config, given).values():
            with pytest.raises(error, match=said.replace("float64", "float")):
                run()


def test_ids_are_not_looked_at_under_jit(gqa, clean):
    """They cannot be; shapes and types are."""
    run = jax.jit(lambda tokens: jh.forward(gqa.params, tokens, gqa.config).logits)
    assert_close(run(gqa.tokens), clean)
    assert np.isfinite(run(gqa.tokens + 1)).all()
    with pytest.raises(TypeError, match="but is float32"):
        run(jnp.ones((4, 13)))


@pytest.mark.parametrize(
    ("lengths", "error", "said"),
    [
        ([13, 7, 0, 10], ValueError, r"lengths\[2\] is 0, the rows have 13 tokens: 1 "),
        ([14, 7, 1, 10], ValueError, r"lengths\[0\] is 14, .*: 1 to 13"),
        ([13, 7, 1], ValueError, r"lengths must be int \[B\] = \(4,\)"),
        ([[13, 7, 1, 10]], ValueError, r"lengths must be int \[B\] = \(4,\)"),
        ([13.0, 7, 1, 10], TypeError, r"lengths must be int \[B\], but is float"),
    ],
)
def test_lengths_are_within_their_rows(gqa, lengths, error, said):
    given, tokens, c = np.array(lengths), gqa.tokens, gqa.config
    sets, targets = np.zeros((1, 3, 6), bool), gqa.targets
    for run in (
        lambda: jh.forward(gqa.params, tokens, c, lengths=given),
        lambda: jh.forward(gqa.params, tokens, c, lengths=given, logits="last"),
        lambda: jh.prefill(gqa.params, tokens, given, c),
        lambda: fills.mean(gqa.params, tokens, given, c),
        lambda: sweeps.metric_under_subsets(
            gqa.params, tokens, given, targets, c, sets, None, chunk=1
        ),
        lambda: sweeps.generate_under_subsets(
            gqa.params, tokens, given, c, sets, None, 1, chunk=1
        ),
    ):
        with pytest.raises(error, match=said):
            run()
    with pytest.raises(TypeError, match="lengths must be an array"):
        jh.prefill(gqa.params, tokens, lengths, c)


def test_targets_are_tokens_of_the_model(gqa, prefix, clean):
    logits, c = clean[:, -1], gqa.config
    wrong = np.array([1, 2, 41, 3])
    sets, fill = np.zeros((1, 3, 6), bool), gqa.fill
    at = np.zeros((4, 1), int)
    vectors, starts = np.zeros((1, 1, c.width), np.float32), np.zeros((1, 1), int)
    given = (gqa.params, gqa.tokens)
    for run, place in (
        (lambda t: jh.probability(logits, t), r"\[2\]"),
        (lambda t: jh.log_probability(logits, t), r"\[2\]"),
        (lambda t: jh.logit_difference(logits, np.stack([t, t], -1)), r"\[2, 0\]"),
        (lambda t: jh.patch_each_head(gqa.params, prefix, fill, t, c), r"\[2\]"),
        (lambda t: remove_each_head(*given, at, t[:, None], c), r"\[2, 0\]"),
        (
            lambda t: steer(
                gqa.params, prefix, vectors, starts, t, c, metric=jh.probability
            ),
            r"\[2\]",
        ),
        (
            lambda t: sweeps.metric_under_subsets(
                *given, gqa.lengths, t, c, sets, None, chunk=1
            ),
            r"\[2\]",
        ),
        (
            lambda t: sweeps.sweep_under_subsets(
                *given, c, sets, None, at, t[:, None], chunk=1
            ),
            r"\[2, 0\]",
        ),
    ):
        with pytest.raises(ValueError, match=rf"targets{place} is 41, .*: 0 to 40"):
            run(wrong)
        with pytest.raises(ValueError, match=rf"targets{place} is -1"):
            run(np.array([1, 2, -1, 3]))
        with pytest.raises(TypeError, match=r"targets must be int.*, but is float"):
            run(wrong * 1.0)
    with pytest.raises(ValueError, match=r"targets must be \[B, ...\] with \(4,\)"):
        jh.patch_each_head(gqa.params, prefix, fill, wrong[:2], c)
    with pytest.raises(
        ValueError, match=r"targets must be int \[4, 2\], one, or of a difference"
    ):
        jh.logit_difference(logits, np.zeros((4, 3), int))


def test_positions_are_within_the_sequences(gqa):
    params, tokens, c = gqa.params, gqa.tokens, gqa.config
    sets = np.zeros((1, 3, 6), bool)
    kept = run_clean(params, tokens, c, 6)
    for position, length, run in (
        (13, 13, lambda at: jh.forward(params, tokens, c, logits=at)),
        (-1, 13, lambda at: jh.forward(params, tokens, c, logits=at)),
        (13, 13, lambda at: remove_each_head(params, tokens, at, at, c)),
        (7, 7, lambda at: resume(params, kept, c, None, at)),
        (
            13,
            13,
            lambda at: sweeps.sweep_under_subsets(
                params, tokens, c, sets, None, at, at, chunk=1
            ),
        ),
    ):
        said = rf"\[3, 1\] is {position}, the sequences have {length} positions: 0 to "
        at = np.zeros((4, 2), int)
        at[3, 1] = position
        with pytest.raises(ValueError, match=said):
            run(at)
        with pytest.raises(TypeError, match="but is float"):
            run(at * 1.0)
    for at in ([0, 3], [13]):
        with pytest.raises(ValueError, match=rf"at.* is {at[0]}, .*: 1 to 12"):
            sweeps.losses_under_subsets(
                params, tokens, c, sets, None, np.array(at), chunk=1
            )
    with pytest.raises(ValueError, match="first_layer is 3, the model has 3 layers"):
        resume(params, kept, c, None, np.zeros((4, 1), int), 3)
    with pytest.raises(ValueError, match=r"segments must be int \[B, T\]"):
        jh.forward(params, tokens, c, segments=np.zeros((4, 12), int))


def test_answers_stay_within_the_context(gqa, prefix):
    params, c = gqa.params, gqa.config
    sets = np.zeros((1, 3, 6), bool)
    assert jh.generate(params, prefix, c, 64 - 13 + 1).shape == (4, 52)
    for count, error, said in (
        (53, ValueError, r"lengths\[0\] is 13, 53 new tokens leave of .* 64: 1 to 12"),
        (0, ValueError, "max_new_tokens must be 1 to the context of 64, but is 0"),
        (-1, ValueError, "max_new_tokens must be 1 to the context of 64, but is -1"),
        (2.0, TypeError, r"max_new_tokens must be an int, but is 2\.0"),
        (True, TypeError, "max_new_tokens must be an int, but is True"),
    ):
        with pytest.raises(error, match=said):
            jh.generate(params, prefix, c, count)
        with pytest.raises(error, match=said):
            sweeps.generate_under_subsets(
                params, gqa.tokens, gqa.lengths, c, sets, None, count, chunk=1
            )


@pytest.mark.parametrize("capture", ["heads", ("head",), ("heads", "z")])
def test_a_capture_is_a_tuple_of_names(gqa, capture):
    with pytest.raises(ValueError, match="capture takes a tuple of names"):
        jh.forward(gqa.params, gqa.tokens, gqa.config, capture=capture)


def test_what_is_patched_in_fits_and_is_finite(gqa, prefix):
    c, targets = gqa.config, gqa.targets
    run = lambda fill: jh.patch_each_head(gqa.params, prefix, fill, targets, c)
    fill = np.asarray(gqa.fill)
    for wrong, error, said in (
        (fill[:2], ValueError, r"fill must be float \[L, H, K\] = \(3, 6, 10\), but"),
        (fill.tolist(), TypeError, "fill must be an array"),
        (fill > 0, TypeError, "but is bool"),
        (fill * np.inf, ValueError, r"fill\[0, 0, 0\] is -?inf"),
    ):
        with pytest.raises(error, match=said):
            run(wrong)
    vectors, starts = np.zeros((1, 2, 22), np.float32), np.zeros((1, 2), int)
    steered = lambda vectors, starts: steer(
        gqa.params, prefix, vectors, starts, targets, c, metric=jh.probability
    )
    for given, error, said in (
        ((vectors, starts + 4), ValueError, r"starts\[0, 0\] is 4, the .*: 0 to 3"),
        ((vectors, starts - 1), ValueError, r"starts\[0, 0\] is -1"),
        ((vectors, starts * 1.0), TypeError, "starts must be int"),
        ((vectors + np.nan, starts), ValueError, "vectors must be finite"),
        ((vectors > 0, starts), TypeError, "vectors must be float"),
    ):
        with pytest.raises(error, match=said):
            steered(*given)


def test_the_engine_takes_sets_of_the_models_heads(gqa):
    fill, sets = np.asarray(gqa.fill), np.zeros((2, 3, 6), bool)

    def run(replaced=sets, fill=fill, site="z", chunk=2):
        return sweeps.metric_under_subsets(
            gqa.params,
            gqa.tokens,
            gqa.lengths,
            gqa.targets,
            gqa.config,
            replaced,
            fill,
            site=site,
            chunk=chunk,
        )

    for options, error, said in (
        (
            {"replaced": sets * 1.0},
            TypeError,
            "True where a head is replaced, but is f",
        ),
        ({"replaced": sets.astype(int)}, TypeError, "replaced must be bool"),
        ({"replaced": sets.tolist()}, TypeError, "where a head is replaced, but is l"),
        ({"replaced": sets[0]}, ValueError, r"\[N, L, H\].* but has shape \(3, 6\)"),
        ({"replaced": sets[:, :2]}, ValueError, "replaced must be bool"),
        ({"site": "v"}, ValueError, r"replaced must be bool \[N, L, G\]"),
        ({"site": "pattern"}, ValueError, "site must be one of"),
        ({"fill": fill + np.nan}, ValueError, "fill must be finite"),
        ({"fill": fill > 0}, TypeError, "fill must be float"),
        ({"chunk": 0}, ValueError, "chunk must be 1 or more"),
    ):
        with pytest.raises(error, match=said):
            run(**options)
    each = np.zeros((3, 4, 13, 6, 10), np.float32)
    everywhere = np.ones((4, 13), bool)
    for value, where, error, said in (
        (fill, everywhere * 1.0, TypeError, r"ablation\.where must be bool"),
        # Only the first 3 positions are run: what they leave out must fit, too.
        (fill, everywhere[:, :9], ValueError, r"where .* has shape \(4, 9\)"),
        (each[:, :, :9], None, ValueError, r"T = 13 or 1, .* \(3, 4, 9, 6, 10\)"),
        (fill[None], None, ValueError, r"fill must .* has \(1, 3, 6, 10\)"),
    ):
        with pytest.raises(error, match=said):
            sweeps.losses_under_subsets(
                gqa.params,
                gqa.tokens,
                gqa.config,
                sets,
                value,
                np.array([3]),
                where=where,
                chunk=1,
            )


def test_sets_and_rankings_are_not_taken_for_each_other():
    scores = np.random.default_rng(0).normal(size=(3, 6))
    chosen = heads.top(scores, 2)
    for run in (
        heads.head_names,
        heads.singles,
        heads.pairs,
        lambda given: heads.exclude(given, chosen),
        lambda given: heads.exclude(chosen, given),
        lambda given: heads.top(scores, 2, given),
        lambda given: heads.layer_matched(np.random.default_rng(0), given),
    ):
        for wrong in (scores, chosen.astype(int)):
            with pytest.raises(TypeError, match="a set of heads is bool"):
                run(wrong)


@pytest.mark.parametrize("fraction", [1.2, -0.1, np.nan])
def test_a_share_of_heads_lies_between_0_and_1(fraction):
    scores = np.ones((3, 6))
    for run in (
        lambda: heads.count_of(fraction, 18),
        lambda: heads.top_fraction(scores, fraction),
        lambda: heads.prefixes(scores, fractions=[0.5, fraction]),
    ):
        with pytest.raises(UserError, match="a share of heads lies between 0 and 1"):
            run()


def test_a_count_of_heads_is_whole():
    scores = np.ones((3, 6))
    with pytest.raises(TypeError, match="integer"):
        heads.top(scores, 0.2)
    with pytest.raises(UserError, match="0 or more, not -1"):
        heads.top(scores, -1)
    with pytest.raises(ValueError, match="counts or fractions, but both"):
        heads.prefixes(scores, [1], fractions=[0.1])


def test_a_mean_begins_where_it_says(gqa):
    run = lambda **given: fills.mean(
        gqa.params, gqa.tokens, np.full(4, 13), gqa.config, **given
    )
    for wrong in ({"first": 1}, {"first": -1, "positions": "each"}):
        with pytest.raises(UserError, match="first is 0 or more, and not for"):
            run(**wrong)


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"dtype must be one of .* but is 'float23'"):
        jh.load("nothing is read", dtype="float23")


def test_a_config_has_numbers_that_a_model_can_have(config):
    """Every size and every constant of every family, its rotary ones included."""
    zero = {"mlp_width": "toy", "rotary_width": "gpt_neox", "norm_offset": "gemma2"}
    parts = [config, getattr(config, "rope", None) or Rope()]
    seen = set()
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            is_size = type(value) is int and field.type is int
            wrong: list = [-1]
            if is_size:
                wrong += [2**31, 2.0, True, "8", None]
            elif isinstance(value, float):
                wrong += [np.nan, np.inf, -0.5, True, "1e-5"]
            else:
                continue
            if field.name != "original_context" and field.name not in zero:
                wrong.append(0)
            for each in wrong:
                with pytest.raises(ValueError, match=f"{field.name} must be "):
                    dataclasses.replace(part, **{field.name: each})
            seen.add(field.name)
    assert {"num_layers", "vocab_size", "norm_epsilon", "theta", "factor"} <= seen
    for factors in ((1.0, np.nan), (0.0, 1.0)):
        with pytest.raises(ValueError, match="factors must be positive and finite"):
            Rope(factors=factors)


def test_a_prefix_of_another_model_is_refused(gqa, prefix):
    other = CONFIGS["llama-mha"]
    fill, targets = prefix.heads[:, 0], prefix.last_tokens
    for run in (
        lambda: jh.last_token_logits(gqa.params, prefix, other),
        lambda: jh.generate(gqa.params, prefix, other, 2),
        lambda: jh.patch_each_head(gqa.params, prefix, fill, targets, other),
    ):
        with pytest.raises(ValueError, match="prefix must be of the model"):
            run()


def test_answers_beyond_the_context_are_refused_under_jit_too(gqa, prefix):
    run = jax.jit(lambda given: jh.generate(gqa.params, given, gqa.config, 1000))
    with pytest.raises(ValueError, match="max_new_tokens must be 1 to the context"):
        run(prefix)
    few: Any = np.int64(2)
    assert jh.generate(gqa.params, prefix, gqa.config, few).shape[1] == 2


def test_new_tokens_do_not_wrap_in_the_dtype_of_the_prompts():
    tiny = Tiny(dataclasses.replace(CONFIGS["llama-gqa"], vocab_size=600))
    made = []
    for dtype in (np.uint8, np.int32):
        tokens = np.array([[1, 2, 3], [7, 5, 250]], dtype)
        prefix = jh.prefill(tiny.params, tokens, None, tiny.config)
        made.append(jh.generate(tiny.params, prefix, tiny.config, 12))
    assert (made[0] == made[1]).all() and made[1].max() > 255


def test_positions_and_targets_are_of_every_row(gqa, clean):
    at = np.ones((1, 1), np.int32)
    with pytest.raises(ValueError, match=r"logits must be int \[B, P\]"):
        jh.forward(gqa.params, gqa.tokens, gqa.config, logits=at)
    for targets in (at[0], np.ones((len(clean), 2), np.int32)):
        with pytest.raises(ValueError, match="targets must be int"):
            jh.probability(clean[:, -1], targets)


@pytest.mark.parametrize(
    "changed",
    [
        {"rms_norm_eps": True},
        {"rms_norm_eps": "1e-5"},
        {"rms_norm_eps": [1]},
        {"rope_theta": 10**400},
        {"rope_scaling": []},
        {"rope_scaling": {"factor": 4.0}},
        {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": True}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": "false"}},
        {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 2.0,
                "original_max_position_embeddings": 256.7,
            }
        },
    ],
)
def test_a_setting_of_another_type_is_not_taken_for_a_number(changed):
    settings = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "intermediate_size": 8,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
    }
    assert llama.Config.from_hf(settings).num_layers == 2
    with pytest.raises(ValueError):
        llama.Config.from_hf({**settings, **changed})
