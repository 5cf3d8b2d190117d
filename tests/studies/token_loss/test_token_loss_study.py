"""The token-loss study's options: fewer documents, a stream, the published average."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads.engine import fills, sweeps
from jaxheads.errors import UserError
from jaxheads.models import family
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation import findings, outcomes
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.job import Given
from jaxheads.studies.run import cost, run_study, stand_in
from jaxheads.studies.token_loss.config import TokenLossConfig
from jaxheads.weights.model import load

PARTS = ("scores", "token_loss")
LOSS = TokenLossConfig(
    documents=50,
    allow_fewer=True,
    fill_documents=2,
    positions=(4, 9),
    window=1,
    fractions=(0.1, 0.3),
    side_by_side=(0.3,),
    draws=2,
    draws_elsewhere=2,
    values=("bos", "mean"),
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of seven short documents, five of which are long enough."""
    folder = tmp_path_factory.mktemp("texts")
    words = [*"abcdefghijklmn"]
    for n in range(5):
        text = " ".join(words[n:] + words[:n])
        (folder / f"{n}.txt").write_text(text, encoding="utf-8")
    for n in (5, 6):
        (folder / f"{n}.txt").write_text("Q:", encoding="utf-8")
    return StudyConfig(
        scores=ScoresConfig(
            tasks=("antonym",),
            clean_prompts=2,
            corrupted_prompts=2,
            sequences=2,
            sequence_length=5,
            documents=2,
            document_length=8,
        ),
        token_loss=LOSS,
        shots=1,
        bos=True,
        text=folder,
    )


@pytest.fixture(scope="module")
def run(model, study, tmp_path_factory):
    return run_study(model, study, tmp_path_factory.mktemp("loss") / "run", parts=PARTS)


def changed(study, **options):
    """The study with other options of the token loss."""
    return dataclasses.replace(study, token_loss=dataclasses.replace(LOSS, **options))


def losses(model, study, **options):
    """What would be scored under other options."""
    made = prepare(model, changed(study, **options), ("token_loss",))
    return made.inputs["token_loss"]


def test_as_many_documents_as_there_are(run, model, study):
    told = run.result["token_loss"]
    assert (told["documents"], told["divided_by"], told["packing"]) == (
        *(3, 3),
        "documents",
    )
    assert run.arrays["prompts/token_loss"].shape[0] == 3
    assert run.arrays["prompts/token_loss_fill"].shape[0] == 2
    # Asked for exactly, the same documents are scored, in the same order.
    exactly = losses(model, study, documents=2, allow_fewer=False)
    np.testing.assert_array_equal(
        exactly.documents, run.arrays["prompts/token_loss"][:2]
    )
    with pytest.raises(
        UserError, match=r"52 documents of 10 tokens .* 5 of 7 are long"
    ):
        losses(model, study, allow_fewer=False)
    with pytest.raises(UserError, match=r"6 documents of 10 tokens .* 5 of 7 are long"):
        losses(model, study, fill_documents=4)  # two are scored at least


@pytest.mark.parametrize(
    ("documents", "scored", "divided_by"),
    [(2, 3, 2), (3, 3, 3), (50, 3, 3)],
)
def test_the_published_average_has_one_document_more(
    model, study, documents, scored, divided_by
):
    made = losses(model, study, documents=documents, average="published")
    assert (len(made.documents), made.divided_by) == (scored, divided_by)
    plain = losses(model, study, documents=documents)
    assert len(plain.documents) == plain.divided_by == min(documents, 3)


def test_the_published_average_is_of_the_published_loop(run):
    """N + 1 documents are added up before the loop ends, and divided by N."""
    result = dict(run.result, token_loss=run.result["token_loss"] | {"divided_by": 2})
    outcome = outcomes.token_loss(dataclasses.replace(run, result=result))
    assert outcome is not None
    loss = run.arrays["token_loss/loss"].astype(np.float64)
    for n, documents in enumerate(loss):
        total, trials = 0.0, 2
        for i, (early, late) in enumerate(documents):
            total += early - late
            if i == trials:
                break
        assert outcome.interval(n).mean == pytest.approx(total / trials)
        middle = np.median(documents[:, 0] - documents[:, 1])  # as it is
        assert outcome.medians[n] == pytest.approx(middle)


def test_further_values_are_tried_at_some_fractions_only(run, model, study):
    told = run.result["token_loss"]["sets"]
    fractions = {
        value: {item["fraction"] for item in told if item["value"] == value}
        for value in LOSS.values
    }
    assert fractions == {"bos": {0.0, 0.1, 0.3}, "mean": {0.3}}
    kinds = [
        {(item["mode"], item["ranking"], item["draw"]) for item in told if chosen(item)}
        for chosen in (
            lambda item: item["value"] == "bos" and item["fraction"] == 0.3,
            lambda item: item["value"] == "mean",
        )
    ]
    assert kinds[0] == kinds[1] and len(kinds[0]) == 6
    for item in told:
        assert (item["largest_change"] > 0) == (item["count"] > 0)
    (row,) = [row for row in run.result["plan"]["rows"] if row["part"] == "token_loss"]
    assert row["forwards"] == 3 * len(told) + 2
    # What is planned is what the sets are, with all fractions too.
    everywhere = changed(study, side_by_side=())
    for config in (study, everywhere):
        prepared = prepare(model, config, PARTS)
        inputs = prepared.inputs["token_loss"]
        sets = inputs.sets(Given.of_arrays(run.arrays, run.result["scores"]))
        rows = sum(len(inputs.of_value(value, sets)) for value in LOSS.values)
        assert rows == (len(told) if config is study else 13 + 12)
        forwards = cost(prepared, model.config, config)["token_loss"].forwards
        assert forwards == 3 * rows + 2
        given = stand_in(prepared, model.config, config)
        fits = inputs.fits(model.params, model.config, given, 10**9)
        assert sum(fit.program.items for fit in fits if fit.program.items > 1) == rows


def test_the_values_after_the_first_take_fewer_random_sets(model, study):
    config = changed(study, side_by_side=(), draws=4, draws_elsewhere=2)
    inputs = prepare(model, config, PARTS).inputs["token_loss"]
    scores = {name: np.eye(2, 3) for name in config.token_loss.rankings}
    half = dataclasses.replace(config.token_loss, fractions=(0.5,))
    sets = dataclasses.replace(inputs, settings=half).sets(Given(scores, None))
    drawn = {
        value: [d["draw"] for d, _ in inputs.of_value(value, sets) if d["draw"] > 0]
        for value in LOSS.values
    }
    assert drawn == {"bos": [1, 2, 3], "mean": [1]}


def test_the_headline_takes_a_value_that_was_measured_there(run):
    """The mean was tried at 0.3 alone; next to 5 % only the first value was."""
    said = findings.find(run).comparison("top", "nats")
    assert said is not None and said.fraction == 0.1
    outcome = outcomes.token_loss(run)
    assert outcome is not None
    (n,) = outcome.find(mode="top", ranking="induction", fraction=0.1, value="bos")
    assert said.bars["induction"].interval == outcome.interval(n)


def test_sets_that_are_the_same_are_run_once(run, model, study, tmp_path, monkeypatch):
    """Here those with exclusion and without are, where nothing is excluded."""
    config = changed(study, exclusion=0.0, values=("bos",), side_by_side=())
    given = []

    def spy(self, params, replaced, **keywords):
        given.append(len({heads.tobytes() for heads in replaced}))
        return run_sweep(self, params, replaced, **keywords)

    run_sweep = sweeps.Sweep.run
    monkeypatch.setattr(sweeps.Sweep, "run", spy)
    again = run_study(
        model, config, tmp_path / "run", parts=("token_loss",), ranking=run
    )
    told = again.result["token_loss"]
    assert told["sets_run"] == given[0] <= len(told["sets"]) - 4
    loss = again.arrays["token_loss/loss"]
    outcome = outcomes.token_loss(again)
    assert outcome is not None
    for ranking in ("induction", "function_vector"):
        for fraction in LOSS.fractions:
            wanted = {"ranking": ranking, "fraction": fraction}
            (a,), (b,) = (
                outcome.find(mode=mode, **wanted) for mode in ("top", "exclusion")
            )
            np.testing.assert_array_equal(loss[a], loss[b])


def test_a_stream_is_scored_in_pieces(model, study, tmp_path):
    made = losses(model, study, packing="stream", documents=4)
    bos = model.tokenizer.bos_id
    assert "in one stream with <s> between documents" in made.text
    assert made.documents.shape == (4, 10) and (made.documents[:, 0] == bos).all()
    # Pieces follow each other without gap, the fill's after those that are scored.
    rows = np.concatenate([made.documents, made.fill_documents])[:, 1:].ravel()
    order = np.random.default_rng([0, 4]).permutation(7)
    texts = [(study.text / f"{n}.txt").read_text() for n in order]
    stream = [bos]
    for text in texts:
        stream += [*model.tokenizer.encode(text), bos]
    assert rows.tolist() == stream[1 : 1 + len(rows)]
    with pytest.raises(UserError, match="a stream of 1002 pieces of 10 tokens"):
        losses(model, study, packing="stream", documents=1000, allow_fewer=False)


# The BOS value, against the published code's hook on the values.


def hooked_losses(tiny: Tiny, tokens: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Loss of every token with chosen values [L, G] set to those of position 0.

    Layer by layer with plain attention of its own: what a hook on the values does,
    which gives every position the value of the first (BOS) of a clean run.
    """
    logits = hooked_logits(tiny.params, jnp.asarray(tokens), tiny.config, chosen)
    logp = np.asarray(jax.nn.log_softmax(logits))
    return -np.take_along_axis(logp[:, :-1], tokens[:, 1:, None], 2)[..., 0]


@jax.jit
def hooked_logits(params, tokens, config, chosen):
    model = family(config.model_type)
    count, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length)[None], (count, length))
    past = jnp.tril(jnp.ones((length, length), bool))[None, None]

    def run(chosen, first):
        """Logits, and the values [B, 1, G, K] of position 0 in each layer."""
        seen = []

        def attend(q, k, v, *, softcap=None, mix=None):
            assert softcap is None and mix is None
            layer = len(seen)
            seen.append(v[:, :1])
            v = jnp.where(chosen[layer][None, None, :, None], first[layer], v)
            keys, values = (jnp.repeat(x, q.shape[2] // x.shape[2], 2) for x in (k, v))
            scores = jnp.einsum("bthk,bshk->bhts", q, keys) / q.shape[-1] ** 0.5
            patterns = jax.nn.softmax(jnp.where(past, scores, -jnp.inf), axis=-1)
            return jnp.einsum("bhts,bshk->bthk", patterns, values)

        x = model.embed(params, tokens, positions, config)
        for layer in range(config.num_layers):
            block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params.layers)
            x = model.block(block, x, positions, attend, config)
        return model.unembed(params, x, config), seen

    _, first = run(jnp.zeros_like(chosen), [0.0] * config.num_layers)
    return run(chosen, first)[0]


def bos_losses(tiny: Tiny, tokens: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """Loss of every token with heads [L, H] set to the BOS value, as the study does."""
    fill = fills.bos_value(tiny.params, tiny.config, int(tokens[0, 0]), site="z")
    at = np.arange(1, tokens.shape[1])
    return sweeps.losses_under_subsets(
        tiny.params, tokens, tiny.config, replaced[None], fill, at, chunk=1
    )[0]


@pytest.fixture(scope="module")
def tokens():
    rows = np.random.default_rng(3).integers(1, 37, (2, 9)).astype(np.int32)
    rows[:, 0] = 5  # BOS
    return rows


@pytest.mark.parametrize(
    "name", ["llama-mha", "gpt_neox", pytest.param("gpt2", marks=pytest.mark.slow)]
)
def test_the_bos_value_is_what_a_hook_on_values_does(name, tokens):
    """With a value head for each query head, whichever heads are replaced."""
    tiny = Tiny(CONFIGS[name])
    shape = (tiny.config.num_layers, tiny.config.num_heads)
    replaced = np.random.default_rng(1).random(shape) > 0.5
    assert 0 < replaced.sum() < replaced.size
    found = bos_losses(tiny, tokens, replaced)
    assert_close(found, hooked_losses(tiny, tokens, replaced))
    # It is no small thing: the clean losses are others.
    clean = bos_losses(tiny, tokens, np.zeros(shape, bool))
    assert np.abs(found - clean).max() > 0.1


def test_under_grouped_queries_a_hook_on_values_replaces_whole_groups(tokens):
    """The published code names query heads to a hook that has one head a group.

    So there it would replace value head h, and with it all query heads of group h, and
    fail for every h that is no group. Here a head is a query head, which gets the value
    of its own group; a whole group of them is what the hook does to one value head.
    """
    tiny = Tiny(CONFIGS["llama-gqa"])
    groups = np.zeros((3, 2), bool)
    groups[1, 0] = groups[2, 1] = True
    whole = np.repeat(groups, 3, axis=1)  # [L, H]
    assert_close(bos_losses(tiny, tokens, whole), hooked_losses(tiny, tokens, groups))
    one = np.zeros((3, 6), bool)
    one[1, 1] = True  # a query head of group 0; the hook would replace value head 1
    published = np.zeros((3, 2), bool)
    published[1, 1] = True
    difference = bos_losses(tiny, tokens, one) - hooked_losses(tiny, tokens, published)
    assert np.abs(difference).max() > 0.01


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"side_by_side": (0.2,)}, "some of --token-loss.fractions, not 0.2"),
        ({"values": ("mean", "mean")}, "different values"),
        ({"values": ()}, "one or more different values"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        StudyConfig(token_loss=TokenLossConfig(**options))


@pytest.mark.parametrize(
    ("chunk", "started"), [(1, [0, 0, 1, 1, 2, 2]), (2, [0, 1, 2])]
)
def test_sets_with_the_same_first_layer_share_a_chunk(
    tokens, monkeypatch, chunk, started
):
    """Each chunk starts at the first layer that one of its sets replaces."""
    tiny = Tiny(CONFIGS["llama-gqa"])
    replaced = np.zeros((6, 3, 6), bool)
    for n, layer in enumerate((2, 0, 1, 2, 1, 0)):
        replaced[n, layer, n] = True
        replaced[n, 2, 0] = True
    fill = fills.bos_value(tiny.params, tiny.config, 5, site="z")
    seen = []

    def spy(*arguments):
        seen.append(int(arguments[3]))
        return resumed(*arguments)

    resumed = sweeps.resumed_subsets
    monkeypatch.setattr(sweeps, "resumed_subsets", spy)
    at = np.array([3, 8])
    found = sweeps.losses_under_subsets(
        tiny.params, tokens, tiny.config, replaced, fill, at, chunk=chunk
    )
    assert seen == started
    ablated = Ablation(jnp.asarray(1.0 - replaced[3]), jnp.asarray(fill))
    out = forward(tiny.params, tokens, tiny.config, ablation=ablated)
    logp = np.asarray(jax.nn.log_softmax(out.logits))
    expected = [-row[at - 1, ids[at]] for row, ids in zip(logp, tokens, strict=True)]
    assert_close(found[3], expected)
