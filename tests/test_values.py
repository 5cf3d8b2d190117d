"""Studies with every value that replaces a head, against whole forwards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.studies.token_loss.config import TokenLossConfig
from jaxheads.weights.model import load

VALUES = ("bos", "mean_by_position", "resample", "zero", "mean")
STUDY = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym",),
        clean_prompts=3,
        corrupted_prompts=2,
        sequences=2,
        sequence_length=5,
        documents=2,
        document_length=8,
    ),
    ablation=AblationConfig(
        tasks=("synonym", "present-past"),
        prompts=3,
        fractions=(0.4,),
        keep_only=(),
        draws=1,
        max_new_tokens=1,
        value="resample",
    ),
    token_loss=TokenLossConfig(
        documents=3,
        fill_documents=2,
        positions=(4, 9),
        window=1,
        fractions=(0.3,),
        draws=1,
        values=VALUES,
    ),
    shots=2,
    bos=True,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    return run_study(model, STUDY, tmp_path_factory.mktemp("values") / "study")


def test_losses_under_every_value_equal_whole_forwards(run, model):
    params, config = model.params, model.config
    tokens = run.arrays["prompts/token_loss"]
    others = run.arrays["prompts/token_loss_fill"]
    heads = np.asarray(forward(params, others, config, capture=("heads",)).heads)
    bos = forward(params, tokens[:1, :1], config, capture=("heads",)).heads
    fills = {
        "bos": np.asarray(bos)[:, 0, 0],
        "mean_by_position": heads.mean(axis=1, keepdims=True),
        "resample": heads[:, [0, 1, 0]],
        "zero": None,
        "mean": heads[:, :, 1:].mean(axis=(1, 2)),
    }
    seen = set()
    for n, told in enumerate(run.result["token_loss"]["sets"]):
        seen.add(told["value"])
        keep = jnp.asarray(1.0 - run.arrays["token_loss/replaced"][n])
        ablation = Ablation(keep, fills[told["value"]])
        out = forward(params, tokens, config, ablation=ablation)
        loss = -np.asarray(jax.nn.log_softmax(out.logits))
        expected = [
            [row[at - 1, document[at]] for at in (4, 9)]  # after BOS
            for row, document in zip(loss, tokens, strict=True)
        ]
        np.testing.assert_allclose(
            run.arrays["token_loss/exact"][n], expected, atol=1e-4
        )
        assert (told["largest_change"] > 0) == (told["count"] > 0)
    assert seen == set(VALUES)


def test_heads_are_resampled_from_another_task(run, model):
    """Each prompt's answer is that under one of the next task's prompts."""
    params, config = model.params, model.config
    names = run.result["evaluation_tasks"]
    for e, task in enumerate(names):
        batch = {
            name: [
                run.arrays[f"prompts/evaluation/{name}{end}"]
                for end in ("", "/lengths", "/targets")
            ]
            for name in names
        }
        other, ends, _ = batch[names[1 - e]]
        out = forward(params, other, config, capture=("heads",))
        heads = np.asarray(out.heads)[:, np.arange(3), ends - 1]  # [L, B, H, K]
        tokens, lengths, targets = batch[task]
        replaced = run.arrays["ablation/replaced"]
        for n, told in enumerate(run.result["ablation"]["sets"]):
            keep = jnp.asarray(1.0 - replaced[n])
            where = np.arange(tokens.shape[1])[None] == lengths[:, None] - 1
            rights = []
            for fill in np.moveaxis(heads, 1, 0):
                ablation = Ablation(keep, jnp.asarray(fill), jnp.asarray(where))
                logits = forward(
                    params, tokens, config, lengths=lengths, ablation=ablation,
                    logits="last",
                ).logits  # fmt: skip
                rights.append(np.asarray(logits).argmax(-1) == targets)
            found = run.arrays["ablation/first_token"][n, e]
            assert (np.asarray(rights) == found[None].astype(bool)).any(axis=0).all()
            assert (told["largest_change"] > 0) == (told["count"] > 0)


def test_a_shuffled_mean_is_another_run(run, model, tmp_path):
    shuffled = dataclasses.replace(
        STUDY, ablation=dataclasses.replace(STUDY.ablation, value="shuffled_mean")
    )
    again = run_study(
        model, shuffled, tmp_path / "run", parts=("ablation",), ranking=run
    )
    told = again.result["ablation"]
    assert told["value"] == "shuffled_mean"
    changes = [item["largest_change"] for item in told["sets"]]
    before = [item["largest_change"] for item in run.result["ablation"]["sets"]]
    assert changes[1:] != before[1:] and min(changes[1:]) > 0


def test_the_bos_value_needs_bos(model, tmp_path):
    with pytest.raises(UserError, match="--bos True"):
        run_study(model, dataclasses.replace(STUDY, bos=False), tmp_path / "run")
