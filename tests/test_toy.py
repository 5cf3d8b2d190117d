"""Toy models: the definition written out, induction in one layer, folders, a study."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import random_params
from plain_ngrams import plain_embedding
from safetensors.numpy import save_file

from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.models.forward import forward
from jaxheads.models.parameters import init_params, num_params
from jaxheads.scores import attention, induction
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.studies.token_loss.config import TokenLossConfig
from jaxheads.weights.convert import from_params
from jaxheads.weights.model import load

SMALL = toy.Config(2, 18, 3, 10, 41, 64)
VARIANTS = {
    "sinusoidal": SMALL,
    "rotary, MLP": dataclasses.replace(SMALL, positions="rotary", mlp_width=34),
    "smeared, no norms": dataclasses.replace(SMALL, smeared_keys=True, norms=False),
    "smeared, rotary": dataclasses.replace(
        SMALL, smeared_keys=True, positions="rotary", theta=500.0
    ),
    "shifted, MLP": dataclasses.replace(SMALL, shifted=True, mlp_width=34),
    "shifted, rotary": dataclasses.replace(SMALL, shifted=True, positions="rotary"),
    "n-grams": dataclasses.replace(SMALL, ngram_orders=(1, 2, 3)),
    "n-grams, no norms": dataclasses.replace(
        SMALL, ngram_orders=(2,), norms=False, shifted=True
    ),
}


def plain_toy(params, tokens, config):
    """A toy in float64 numpy, one head and one position at a time: [T] -> [T, V]."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    rotated = config.positions == "rotary"
    half = (config.head_dim if rotated else config.width) // 2
    waves = config.theta ** (-np.arange(half) / half)

    def norm(x, scale, bias):
        if not config.norms:
            return x
        return (x - x.mean()) / np.sqrt(x.var() + config.norm_epsilon) * scale + bias

    def placed(x, t):
        sinusoids = np.concatenate([np.sin(t * waves), np.cos(t * waves)])
        return x if rotated else x + sinusoids

    def turned(x, t):
        pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * t * waves)
        return np.concatenate([pairs.real, pairs.imag]) if rotated else x

    stream = list(plain_embedding(params, tokens, config))
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p.layers)
        normed = [
            norm(x, layer.attention_norm, layer.attention_norm_bias) for x in stream
        ]
        out = [x.copy() for x in stream]
        for h in range(config.num_heads):
            q, k, v = [], [], []
            for t, x in enumerate(normed):
                q.append(turned(placed(x, t) @ layer.wq[:, h], t))
                k.append(placed(x, t) @ layer.wk[:, h])
                v.append(x @ layer.wv[:, h])
            if config.shifted:
                (a1, a2), (b1, b2) = layer.shift[h]
                k = [a1 * x + a2 * y for x, y in zip(k, [0 * k[0], *k], strict=False)]
                v = [b1 * x + b2 * y for x, y in zip(v, [0 * v[0], *v], strict=False)]
            k = [turned(x, t) for t, x in enumerate(k)]
            if config.smeared_keys:
                share = 1 / (1 + np.exp(-layer.smear[h]))
                k = [k[0]] + [
                    share * x + (1 - share) * y for x, y in zip(k[1:], k, strict=False)
                ]
            for t in range(len(tokens)):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)])
                scores /= math.sqrt(config.head_dim)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                z = sum(w * x for w, x in zip(weights, v, strict=False))
                out[t] += z @ layer.wo[h]
        if config.mlp_width:
            gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
            for t, x in enumerate(out):
                hidden = gelu(norm(x, layer.mlp_norm, layer.mlp_norm_bias) @ layer.w_up)
                out[t] = x + hidden @ layer.w_down
        stream = out
    return np.stack(
        [norm(x, p.final_norm, p.final_norm_bias) @ p.unembedding for x in stream]
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_a_plain_model_written_out_in_numpy(name):
    config = VARIANTS[name]
    tokens = np.random.default_rng(0).integers(0, 3, (2, 11))  # n-grams come again
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64), random_params(config)
        )
        logits = forward(params, jnp.asarray(tokens), config).logits
    expected = np.stack([plain_toy(params, row, config) for row in tokens])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-9)


def induction_by_hand(**kind) -> tuple[toy.Config, toy.Params]:
    """One layer: head 0 does nothing; head 1 looks for its own token and copies.

    Tokens are so large against positions that queries and keys are the tokens. With
    keys one position late, head 1 finds the token that came after.
    """
    v = 40
    config = toy.Config(1, v, 2, v, v, 64, norms=False, **kind)
    unit = jnp.eye(v)
    head_1 = jnp.zeros((1, v, 2, v)).at[0, :, 1].set(unit)
    params = random_params(config)
    smear, shift = None, None
    if config.smeared_keys:
        smear = jnp.full((1, 2), -30.0)
    if config.shifted:  # a1, a2, b1, b2 = 0, 1, 1, 0
        shift = jnp.broadcast_to(jnp.array([[0.0, 1.0], [1.0, 0.0]]), (1, 2, 2, 2))
    layers = params.layers.replace(
        wq=head_1,
        wk=head_1,
        wv=head_1,
        wo=3 * head_1.swapaxes(1, 2).swapaxes(2, 3),  # louder than the token itself
        smear=smear,
        shift=shift,
    )
    return config, params.replace(embedding=100 * unit, layers=layers, unembedding=unit)


@pytest.mark.parametrize("kind", [{}, {"smeared_keys": True}, {"shifted": True}])
def test_one_layer_does_induction_with_late_keys_and_not_without(kind):
    config, params = induction_by_hand(**kind)
    tokens = induction.probe(8, 15, range(1, 40), 0, seed=0)
    out = forward(params, jnp.asarray(tokens), config)
    predicted = np.asarray(out.logits.argmax(axis=-1))[:, 16:-1]
    right = (predicted == tokens[:, 17:]).mean()
    edges = induction.edges(15, bos=True)
    samples = attention.attention_shares(params, tokens, config, edges, 3)
    score = induction.head_scores(samples, 15, bos=True)
    if kind:
        assert right == 1
        np.testing.assert_allclose(score.mean[0, 1], score.ceiling, atol=1e-6)
    else:
        assert right == 0
        assert score.mean[0, 1] < score.chance
    np.testing.assert_allclose(score.mean[0, 0], score.chance, atol=1e-6)


def test_shifts_start_as_a_mean_of_a_token_and_the_one_before():
    config = dataclasses.replace(SMALL, num_layers=50, shifted=True)
    leaf = toy.abstract(config).layers.shift
    shift = init_params({"shift": leaf}, jax.random.key(0))["shift"]
    assert shift.shape == (50, 3, 2, 2)
    np.testing.assert_allclose(shift.sum(axis=-1), 1, atol=1e-6)
    own = np.sort(np.asarray(shift[..., 0]).ravel())  # uniform: close to its quantiles
    np.testing.assert_allclose(own, np.linspace(0, 1, own.size), atol=0.1)


def test_params_are_counted():
    d, h, k, v, f = 18, 3, 10, 41, 34
    alone = 2 * d * v + 2 * d + 2 * (4 * d * h * k + 2 * d)
    assert num_params(toy.abstract(SMALL)) == alone
    mlp = dataclasses.replace(SMALL, mlp_width=f, smeared_keys=True)
    assert num_params(toy.abstract(mlp)) == alone + 2 * (2 * d * f + 2 * d + h)


def write_toy(folder, config, params):
    """A toy as a folder: config.json with the config's fields, and safetensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    save_file(from_params(params, toy, config, "hf"), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_gives_back_the_config_and_every_bit(tmp_path, name):
    config = VARIANTS[name]
    params = random_params(config)
    model = load(write_toy(tmp_path / "toy", config, params))
    assert model.config == config
    equal = jax.tree.map(lambda a, b: np.array_equal(a, b), model.params, params)
    assert all(jax.tree.leaves(equal))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": None}, "width"),
        ({"width": 17}, "width must be even"),
        ({"num_heads": 0}, "num_heads must be positive"),
        ({"mlp_width": -1}, "mlp_width must be 0 or more"),
        ({"mlp_width": "34"}, "mlp_width"),
        ({"positions": "learned"}, "positions = 'learned'"),
        ({"positions": "rotary", "head_dim": 7}, "head_dim must be even"),
        ({"norms": "no"}, "norms"),
        ({"smeared_keys": True, "shifted": True}, "choose one"),
        ({"ngram_orders": [1, 4]}, "ngram_orders must be a list of orders"),
        ({"ngram_orders": 2}, "ngram_orders"),
        ({"rope_scaling": {"type": "linear"}}, "also rope_scaling"),
    ],
)
def test_a_config_that_is_not_built_is_refused_by_name(tmp_path, change, message):
    settings = {**dataclasses.asdict(SMALL), **change}
    with pytest.raises(ValueError, match=message):
        toy.Config.from_hf(settings)
    folder = write_toy(tmp_path / "toy", SMALL, random_params(SMALL))
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_gguf_file_of_a_toy_is_refused():
    with pytest.raises(ValueError, match="folder"):
        toy.Config.from_gguf({"general.architecture": "toy"})


@pytest.mark.slow
def test_a_whole_study_runs_on_attention_alone(model_folder, tmp_path):
    config = toy.Config(2, 18, 3, 10, 600, 512, smeared_keys=True)
    folder = write_toy(tmp_path / "toy", config, random_params(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_folder / name, folder)
    study = StudyConfig(
        scores=ScoresConfig(
            tasks=("antonym",),
            clean_prompts=3,
            corrupted_prompts=3,
            sequences=3,
            sequence_length=12,
            documents=2,
            document_length=20,
        ),
        ablation=AblationConfig(
            tasks=("synonym",),
            prompts=3,
            fractions=(0.3,),
            exclusion=0.1,
            keep_only=(),
            draws=1,
            max_new_tokens=2,
        ),
        token_loss=TokenLossConfig(
            documents=3,
            fill_documents=2,
            positions=(10, 30),
            window=3,
            fractions=(0.3,),
        ),
        shots=3,
    )
    model = load(folder)
    run = run_study(model, study, tmp_path / "run")
    for name, array in run.arrays.items():
        assert np.isfinite(array).all(), name
    for part in ("fv/effects", "ablation/f1", "token_loss/loss"):
        assert run.arrays[part].size > 0
    tokens = run.arrays["prompts/induction"]
    edges = induction.edges(12, bos=tokens.shape[1] == 25)
    samples = attention.attention_shares(model.params, tokens, config, edges, 2)
    np.testing.assert_allclose(
        run.arrays["score/induction"], samples.mean(axis=-1), atol=1e-5
    )
