"""Head effects as the published code computes them, by torch hooks: ``make parity``."""

# pyright: reportMissingImports=false

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from reference import output_projections, random_model, save
from variants import VARIANTS

from jaxheads import runs
from jaxheads.icl import published
from jaxheads.icl.prompts import Prompt
from jaxheads.icl.tasks import load_tasks
from jaxheads.studies.protocols import PROTOCOLS
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.parity

TASKS = ("antonym_train", "choose_first_of_3_train")
CLEAN, CORRUPTED, SHOTS = 6, 4, 4


@dataclasses.dataclass(frozen=True)
class Published:
    """What the published code's way gives.

    Attributes:
        mean_heads: [A, L, H, K], mean over clean prompts at the last token.
        effects: [A, L, H, B], rise of the answer's probability.
    """

    mean_heads: np.ndarray
    effects: np.ndarray


class Reference:
    """A torch model and tokenizer, run a prompt at a time as the published code does.

    Args:
        model: of transformers.
        tokenizer: of the same folder.
        bos: written in front of every prompt.
    """

    def __init__(self, model, tokenizer, bos: str):
        self.model, self.tokenizer, self.bos = model, tokenizer, bos
        self.modules = output_projections(model)
        self.heads = model.config.num_attention_heads

    def ids(self, text: str) -> torch.Tensor:
        """Token ids [1, T] of a text with BOS written in front of it."""
        found = self.tokenizer(self.bos + text, return_tensors="pt").input_ids
        assert found.shape[0] == 1
        return found

    def last_heads(self, prompt: Prompt) -> np.ndarray:
        """Inputs of the output projections at the last token, by head: [L, H, K]."""
        seen = []
        hooks = [
            module.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0][0, -1])
            )
            for module in self.modules
        ]
        self.model(self.ids(prompt.text))
        for hook in hooks:
            hook.remove()
        return np.stack([z.reshape(self.heads, -1).numpy() for z in seen])

    def chance(
        self, prompt: Prompt, replaced: tuple[int, int] | None, mean: np.ndarray
    ) -> float:
        """Probability of the answer's first token, one head replaced if asked."""

        def replace(_, inputs):
            layer, head = replaced or (0, 0)
            z = inputs[0].clone()
            split = z.view(*z.shape[:-1], self.heads, -1)
            split[-1, -1, head] = torch.tensor(mean[layer, head])
            return (z, *inputs[1:])

        hook = None
        if replaced is not None:
            hook = self.modules[replaced[0]].register_forward_pre_hook(replace)
        logits = self.model(self.ids(prompt.text)).logits[:, -1, :]
        if hook is not None:
            hook.remove()
        target = self.tokenizer([f" {prompt.answer}"]).input_ids[0][0]
        return torch.softmax(logits, dim=-1)[0, target].item()


@torch.no_grad()
def by_hooks(reference: Reference) -> Published:
    """Every task, prompt, layer and head in turn: one forward each."""
    tasks = load_tasks(TASKS)
    means, effects = [], []
    for clean, corrupted in published.scoring_prompts(
        tasks, CLEAN, CORRUPTED, SHOTS, 42
    ):
        mean = np.mean([reference.last_heads(prompt) for prompt in clean], axis=0)
        layers, heads = mean.shape[:2]
        made = np.zeros((layers, heads, len(corrupted)))
        for b, prompt in enumerate(corrupted):
            before = reference.chance(prompt, None, mean)
            for layer in range(layers):
                for head in range(heads):
                    after = reference.chance(prompt, (layer, head), mean)
                    made[layer, head, b] = after - before
        means.append(mean)
        effects.append(made)
    return Published(np.stack(means), np.stack(effects))


def write_model(name: str, tokenizer: Path, folder: Path):
    """A tiny random model with the tests' tokenizer, in hub layout."""
    settings = dict(VARIANTS[name].settings, vocab_size=600)
    settings |= {"max_position_embeddings": 256}
    if name == "gpt2":
        settings["n_positions"] = settings.pop("max_position_embeddings")
    model = random_model(dataclasses.replace(VARIANTS[name], settings=settings))
    save(model, folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    return model


@pytest.fixture(scope="module", params=["gpt_neox", "gpt2"])
def compared(request, model_folder, tmp_path_factory) -> tuple[runs.Run, Published]:
    """A run of the study from a folder, and the same by hooks on its torch model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    model = write_model(request.param, model_folder, folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>"
    )
    expected = by_hooks(Reference(model, tokenizer, "<s>"))
    config = PROTOCOLS["yin2025-code"]
    scores = dataclasses.replace(
        config.scores,
        tasks=TASKS,
        clean_prompts=CLEAN,
        corrupted_prompts=CORRUPTED,
        sequences=4,
        documents=2,
        document_length=16,
    )
    config = dataclasses.replace(config, scores=scores, shots=SHOTS)
    run = run_study(load(folder), config, folder / "run", parts=("scores",))
    return run, expected


def test_effects_of_all_heads_equal_the_published_codes(compared):
    run, expected = compared
    found = run.arrays["fv/effects_by_prompt"]
    assert found.shape == expected.effects.shape
    largest = np.abs(expected.effects).max()
    distance = np.abs(found - expected.effects).max()
    assert distance <= 1e-6 and distance < largest / 500, (distance, largest)


def test_the_score_and_the_mean_heads_equal_the_published_codes(compared):
    run, expected = compared
    score = expected.effects.mean(axis=(0, 3))
    np.testing.assert_allclose(run.arrays["score/function_vector"], score, atol=1e-6)
    assert (score.argmax(), score.argmin()) == (
        run.arrays["score/function_vector"].argmax(),
        run.arrays["score/function_vector"].argmin(),
    )
    means = expected.mean_heads.mean(axis=0)
    np.testing.assert_allclose(run.arrays["fv/mean_heads"], means, atol=1e-5)
