"""What the fuzz breaks: whole files of every kind, and how each is read."""

import contextlib
import functools
import gzip
import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import gguf
import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import tokenizers
from listed_corpus import ListedCorpus
from model_folder import write_folder
from rich.console import Console
from safetensors.numpy import load_file
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch_files import write_torch

import jaxheads as jh
from jaxheads import runs
from jaxheads.cli.lists import table
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, published_files
from jaxheads.heads.rankings import read_ranking, write_ranking
from jaxheads.heads.set_files import read_sets, write_sets
from jaxheads.icl.tasks import load_tasks
from jaxheads.icl.texts import read_documents
from jaxheads.models import llama, toy
from jaxheads.models.parameters import init_params, num_params
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.opening import open_arms
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.dynamics.run import run_dynamics
from jaxheads.studies.dynamics.series import open_series
from jaxheads.studies.dynamics.trained import is_training
from jaxheads.studies.run import run_study
from jaxheads.studies.six_arguments.curves import read_curves
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.checkpoints import load_state, save_state, step_name
from jaxheads.training.choices import choose_model
from jaxheads.training.config import EvidenceConfig, ModelChoice, TrainConfig
from jaxheads.training.data.corpora import open_corpus
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.token_store import open_store, tokenise
from jaxheads.training.data.vocabulary import train_tokenizer
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.trained import open_trained
from jaxheads.weights.checkpoint import Checkpoint
from jaxheads.weights.convert import from_params, survey
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.inspection import inspect_source, print_inspection
from jaxheads.weights.model import configure
from jaxheads.weights.store import save

SHAPE = (2, 4)
CONFIG = llama.Config(*SHAPE[:1], 16, SHAPE[1], 2, 4, 12, 300, 64, tied=True)
TOY = toy.Config(1, 16, 2, 8, 10, 12)
REPEATS = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
TRAINING = TrainConfig(
    steps=6, batch_size=4, seeds=2, eval_every=2, checkpoints=("2",), resume_every=2
)
EVIDENCE = EvidenceConfig(
    evidence_samples=8, probe_period=3, probe_repeats=2, repetitions=4
)
STUDY = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym",), clean_prompts=3, corrupted_prompts=2, sequences=2,
        sequence_length=12, documents=2, document_length=8,
    ),
    shots=1,
)  # fmt: skip
LINES = [f"Q: the {word} of {n}\nA: {word}s" for n in range(40) for word in "abcdef"]


class Reader(NamedTuple):
    """A kind of file.

    Attributes:
        sample: folder or file below the folder of samples.
        broken: patterns of the files within that are broken; none: it is one file.
        read: raises ``UserError``, or reads it.
        share: of the inputs, against 1 for the others.
        exact: hashes must tell what is not as it was written: ``read`` returns what
            must be the same, and anything else is accepted in silence.
        writes: a command that goes on with the folder, and writes into it.
    """

    sample: str
    broken: tuple[str, ...]
    read: Callable[[Path], object]
    share: float = 1.0
    exact: bool = False
    writes: bool = False


def read_config(path: Path) -> None:
    if _is_object(path):
        settings = json.loads(path.read_text())
        kind = settings.get("model_type")
        kind = kind if isinstance(kind, str) else "llama"
        checkpoint = Checkpoint(path, "safetensors", "hf", kind, settings, {})
        family, config = configure(checkpoint)
        num_params(family.abstract(config))
        survey({}, family, config, "hf")
    choose_model(ModelChoice(str(path)), REPEATS)


def _is_object(path: Path) -> bool:
    try:
        found = path.is_file() and json.loads(path.read_text())
        return isinstance(found, dict)
    except (ValueError, RecursionError):
        return False


def read_tokenizer(path: Path) -> None:
    tokenizer, _ = Tokenizer.from_folder(path)
    if tokenizer is not None:
        ids = tokenizer.encode("Q: the word, aaaa 12 — ä\nA: <s>")
        tokenizer.decode(ids)
        _ = tokenizer.special_ids, tokenizer.vocab_size, tokenizer.sha256


def read_corpus(path: Path) -> None:
    corpus = open_corpus(path)
    for unit in range(len(corpus.units)):
        list(corpus.documents(unit))


def inspect(path: Path) -> None:
    with io.StringIO() as nowhere:
        found = inspect_source(path)
        print_inspection(found, Console(file=nowhere))
    if found.refusal:
        raise UserError(found.refusal)
    jh.load(path)  # what it calls loadable


def read_store(path: Path) -> object:
    model = jh.load(path)
    return params_sha256(model.params), model.config, model.provenance


def read_tokens(path: Path) -> object:
    store = open_store(path)
    store.verify()
    arrays = [np.asarray(each) for each in (store.tokens, store.offsets, store.hashes)]
    return [array.tobytes() for array in arrays]


def read_state(path: Path) -> object:
    state, told = load_state(path, STATE)
    return params_sha256(state), told


def read_run(path: Path) -> object:
    read_ranking(path)
    return read_whole_run(path)


def read_training(path: Path) -> object:
    is_training(path)
    trained = open_trained(path)
    read_curves(trained)
    trained.evidence().describe()
    open_arms([path, path.parents[2] / "samples" / "training"], ArmsConfig())
    return read_whole_run(path), trained.steps


def read_checkpoints(path: Path) -> object:
    series = open_series(path / "checkpoints" / "seed_0")
    series.choose((), "error")
    trained = open_trained(path)
    return [params_sha256(trained.params(step)) for step in trained.steps]


def read_whole_run(path: Path) -> object:
    run = runs.load(path)
    return run.result, _bytes_of(run)


@functools.cache
def small_model(path: Path) -> jh.Model:
    return jh.load(path)


@functools.cache
def small_tokenizer() -> Tokenizer:
    return train_tokenizer(ListedCorpus("words", LINES), 260)


def _bytes_of(run: runs.Run) -> object:
    return {name: one.tobytes() for name, one in run.arrays.items()}


def study(path: Path) -> object:
    model = small_model(path.parents[2] / "samples" / "model")
    found = run_study(model, STUDY, path, parts=("scores",), memory_gb=1.0)
    return _bytes_of(found)


def dynamics(path: Path) -> object:
    series = path.parents[2] / "samples" / "series"
    return _bytes_of(run_dynamics(series, STUDY, path, few_shot=False, memory_gb=1.0))


def training(path: Path) -> object:
    evidence = make_evidence(EVIDENCE, TOY, REPEATS)
    return _bytes_of(train(TRAINING, TOY, REPEATS, path, evidence=evidence))


def tokens(path: Path) -> object:
    tokenise(ListedCorpus("words", LINES), small_tokenizer(), path, chunk=500)
    return read_tokens(path)


def read_task_files(path: Path) -> None:
    load_tasks(None, path)
    table(path)


def read_scores(path: Path) -> None:
    read_ranking(path, shape=SHAPE)


READERS = {
    "model folder, config.json": Reader("model", ("config.json",), jh.load),
    "inspection": Reader("model", ("*.json",), inspect),
    "configs of all families": Reader("configs", (), read_config, 2),
    "safetensors": Reader("model", ("model.safetensors",), jh.load),
    "index of shards": Reader("shards", ("*.index.json",), jh.load),
    "torch .bin": Reader("torch", ("*.bin",), jh.load),
    "index of torch shards": Reader("torch_shards", ("*",), jh.load),
    "GGUF": Reader("gguf/model.gguf", (), jh.load),
    "tokenizer.json": Reader("model", ("tokenizer.json",), read_tokenizer, 2),
    "tokenizer's settings": Reader(
        "settings", ("*_config.json", "special*", "added*"), read_tokenizer
    ),
    "vocab.json, merges.txt": Reader("vocab", ("*",), read_tokenizer),
    "SentencePiece": Reader("sentencepiece", ("*.model",), read_tokenizer),
    "converted model": Reader(
        "store", ("*.json", "params/**/*"), read_store, 0.5, exact=True
    ),
    "task files": Reader("tasks", ("*.json",), read_task_files),
    "texts": Reader("texts", (), read_documents, 2),
    "corpora": Reader("corpora", ("*",), read_corpus),
    "data set on the disk": Reader("dataset", ("**/*",), read_corpus),
    "token store": Reader(
        "tokens", ("*.json", "*.npy", "*.bin"), read_tokens, exact=True
    ),
    "unfinished tokens": Reader(
        "unfinished/tokens", ("*",), tokens, 0.5, exact=True, writes=True
    ),
    "training state": Reader(
        "state/step_00000003", ("*.json", "arrays/**/*"), read_state, 0.25, exact=True
    ),
    "trainings": Reader(
        "training", ("result.json", "arrays.npz"), read_training, 0.5, exact=True
    ),
    "checkpoints of a training": Reader(
        "training", ("checkpoints/**/*",), read_checkpoints, 0.25, exact=True
    ),
    "unfinished training": Reader(
        "unfinished/training", ("*.json*", "units/*", "state/*/*.json"), training,
        0.05, exact=True, writes=True,
    ),
    "unfinished study": Reader(
        "unfinished/study", ("run.json", "units/*"), study, 0.05,
        exact=True, writes=True,
    ),
    "unfinished dynamics": Reader(
        "unfinished/dynamics", ("run.json", "steps/**/*.*"), dynamics, 0.05,
        exact=True, writes=True,
    ),
    "rankings": Reader("rankings", (), read_scores, 2),
    "mean heads": Reader("means/means.pt", (), published_files.read_mean_heads),
    "sets of heads": Reader("sets/sets.json", (), read_sets),
    "runs": Reader("run", ("*.json", "*.npz"), read_run, exact=True),
}  # fmt: skip

STATE: Any = {
    "params": jax.ShapeDtypeStruct((4, 3), "float32"),
    "step": jax.ShapeDtypeStruct((), "int32"),
}


def make_samples(root: Path) -> None:
    """Write every sample below a new folder."""
    root.mkdir(parents=True)
    params = init_params(llama.abstract(CONFIG), jax.random.key(1))
    inner = _tokenizer()
    model = write_folder(root / "model", CONFIG, params)
    inner.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    tensors = load_file(model / "model.safetensors")
    write_folder(root / "shards", CONFIG, params, shards=3)
    torch = root / "torch"
    shutil.copytree(model, torch)
    (torch / "model.safetensors").unlink()
    write_torch(torch / "pytorch_model.bin", tensors)
    (root / "gguf").mkdir()
    _write_gguf(root / "gguf" / "model.gguf", params, inner)
    _write_settings(root / "settings", inner)
    _write_vocab(root / "vocab", inner)
    (root / "sentencepiece").mkdir()
    data = Path(__file__).parents[1] / "data"
    shutil.copy(
        data / "sentencepiece_llama.model", root / "sentencepiece" / "tokenizer.model"
    )
    save(jh.load(model), root / "store")
    _write_configs(root / "configs")
    _write_texts(root)
    _write_heads(root)
    _write_torch_shards(root / "torch_shards", model, tensors)
    _write_unfinished(root)
    told = {"step": 3, "fingerprint": "0", "seconds": 1.0}
    state: Any = {"params": np.ones((4, 3), np.float32), "step": np.int32(3)}
    save_state(root / "state" / step_name(3), state, told)


def _write_torch_shards(folder: Path, model: Path, tensors: dict[str, Any]) -> None:
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("model.*", "tok*"))
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    shard_of = {name: names[n % 2] for n, name in enumerate(tensors)}
    for file in names:
        part = {key: tensors[key] for key in tensors if shard_of[key] == file}
        write_torch(folder / file, part)
    index = json.dumps({"metadata": {}, "weight_map": shard_of})
    (folder / "pytorch_model.bin.index.json").write_text(index)


class _Stopped(Exception):
    """Ends a run before it is finished."""


def _write_unfinished(root: Path) -> None:
    """What commands go on with, and a training that is finished."""
    for step in (0, 2):
        shutil.copytree(root / "model", root / "series" / f"step{step}")
    finish = runs.RunFolder.finish

    def stop(folder: runs.RunFolder, result, arrays) -> runs.Run:
        if folder.path.parent.name == "unfinished":
            raise _Stopped
        return finish(folder, result, arrays)

    def stop_tokens(done) -> None:
        if done.documents > 20:
            raise _Stopped

    into = root / "unfinished"
    with mock.patch.object(runs.RunFolder, "finish", stop):
        for command in (study, dynamics, training):
            with contextlib.suppress(_Stopped):
                command(into / command.__name__)
    corpus = ListedCorpus("words", LINES)
    with contextlib.suppress(_Stopped):
        tokenise(
            corpus, small_tokenizer(), into / "tokens", chunk=500, progress=stop_tokens
        )
    training(root / "training")


def _tokenizer() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>"],
        show_progress=False,
    )
    inner.train_from_iterator(LINES, trainer)
    return inner


def _write_gguf(path: Path, params, inner: tokenizers.Tokenizer) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONFIG.context_length)
    writer.add_embedding_length(CONFIG.width)
    writer.add_block_count(CONFIG.num_layers)
    writer.add_feed_forward_length(CONFIG.mlp_width)
    writer.add_head_count(CONFIG.num_heads)
    writer.add_head_count_kv(CONFIG.num_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    model = json.loads(inner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(0)
    for name, values in from_params(params, llama, CONFIG, "gguf").items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(folder: Path, inner: tokenizers.Tokenizer) -> None:
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    token = {"content": "<pad>", "lstrip": False, "special": True}
    files = {
        "tokenizer_config.json": {
            "bos_token": {"content": "<s>", "__type": "AddedToken"},
            "add_bos_token": True,
            "add_prefix_space": True,
            "tokenizer_class": "GPT2Tokenizer",
            "extra_special_tokens": ["<a>"],
        },
        "special_tokens_map.json": {
            "pad_token": token, "additional_special_tokens": ["<b>", token]
        },
        "added_tokens.json": {"<pad>": inner.get_vocab_size()},
        "config.json": {"model_type": "gpt2", "bos_token_id": 0},
    }  # fmt: skip
    for name, said in files.items():
        (folder / name).write_text(json.dumps(said))


def _write_vocab(folder: Path, inner: tokenizers.Tokenizer) -> None:
    folder.mkdir()
    model = json.loads(inner.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")


def _write_configs(folder: Path) -> None:
    folder.mkdir()
    llamas = {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "intermediate_size": 12,
        "vocab_size": 50,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4,
              "original_max_position_embeddings": 16}  # fmt: skip
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0,
              "original_max_position_embeddings": 16}  # fmt: skip
    configs = {
        "llama": llamas | {"rope_scaling": llama3, "rope_theta": 1e4},
        "mistral": llamas | {"sliding_window": 8, "rope_parameters": scaled},
        "qwen2": llamas | {"sliding_window": 8, "use_sliding_window": True,
                           "layer_types": ["sliding_attention", "full_attention"]},
        "qwen3": llamas | {"attention_bias": False},
        "olmo2": llamas | {"hidden_act": "silu"},
        "gemma2": llamas | {"query_pre_attn_scalar": 4, "sliding_window": 8,
                            "attn_logit_softcapping": 50.0,
                            "hidden_activation": "gelu_pytorch_tanh",
                            "final_logit_softcapping": 30.0},
        "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 4, "vocab_size": 50,
                 "n_positions": 64, "n_inner": None, "layer_norm_epsilon": 1e-5,
                 "activation_function": "gelu_new", "scale_attn_weights": True},
        "gpt_neox": {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 50,
                     "num_attention_heads": 4, "intermediate_size": 12,
                     "max_position_embeddings": 64, "rotary_pct": 0.5,
                     "layer_norm_eps": 1e-5, "use_parallel_residual": True},
    }  # fmt: skip
    for kind, settings in configs.items():
        text = json.dumps({"model_type": kind} | settings)
        (folder / f"{kind}.json").write_text(text)


def _write_texts(root: Path) -> None:
    for name in ("tasks", "texts", "corpora"):
        (root / name).mkdir()
    pairs = [{"input": f"word {n}", "output": n if n % 2 else f"w{n}"}
             for n in range(12)]  # fmt: skip
    (root / "tasks" / "antonym.json").write_text(json.dumps(pairs))
    (root / "tasks" / "other.json").write_text(json.dumps(pairs[:3]))
    for folder in (root / "texts", root / "corpora"):
        (folder / "a.txt").write_text("ä text\nof lines\n", encoding="utf-8")
        rows = "\n".join(json.dumps({"text": line, "n": 1}) for line in LINES[:9])
        (folder / "b.jsonl").write_text(rows)
        table = pyarrow.table({"n": range(9), "text": LINES[:9]})
        pyarrow.parquet.write_table(table, folder / "c.parquet", row_group_size=4)
    with pyarrow.ipc.new_stream(root / "corpora" / "d.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=4)
    with gzip.open(root / "corpora" / "e.jsonl.gz", "wt") as zipped:
        zipped.write(rows)
    part = root / "dataset" / "train"
    part.mkdir(parents=True)
    shutil.copy(root / "corpora" / "d.arrow", part / "data-00000-of-00001.arrow")
    (root / "dataset" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    files = [{"filename": "data-00000-of-00001.arrow"}]
    said = {"_data_files": files, "_fingerprint": "0", "_split": "train"}
    (part / "state.json").write_text(json.dumps(said))
    tokenise(ListedCorpus("words", LINES), small_tokenizer(), root / "tokens")


def _write_heads(root: Path) -> None:
    for name in ("rankings", "means", "sets"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    mean = rng.normal(size=SHAPE)
    said = dict(definition="d", unit="u", chance=0.0, ceiling=1.0, source="s")
    scores = HeadScores("function_vector", mean, np.abs(mean) / 9, **said)  # type: ignore[arg-type]
    into = root / "rankings"
    write_ranking(into / "a.json", scores, model="m", params_sha256="0" * 64)
    write_ranking(into / "b.csv", scores)
    named = {f"{l}.{h}": float(value) for (l, h), value in np.ndenumerate(mean)}
    (into / "fv.pkl").write_bytes(pickle.dumps(named, 4))
    rows = [[*at, float(value)] for at, value in np.ndenumerate(np.abs(mean))]
    for name in ("heads.txt", "heads.json"):
        (into / name).write_text(json.dumps(rows))
    trials = {"x": rng.normal(size=(5, *SHAPE)).astype(np.float32)}
    _write_tensor(into / "indirect_effect.pt", trials["x"])
    _write_tensor(
        root / "means" / "means.pt", rng.normal(size=(*SHAPE, 4)).astype(np.float32)
    )
    mask = mean > 0
    write_sets(root / "sets" / "sets.json", {"a": mask, "b": ~mask})
    model = {"name": "m", "revision": None, "params_sha256": "0" * 64}
    run = runs.RunFolder(root / "run", "scores", {"seed": 0}, model)
    arrays = {"score/function_vector": mean, "score/function_vector_se": abs(mean)}
    scored = {"scores": {"function_vector": said}, "scoring_tasks": ["a"]}
    run.finish(scored, arrays)


def _write_tensor(path: Path, values: np.ndarray) -> None:
    """A tensor alone, as ``torch.save`` writes it."""
    from torch_files import STORAGES, storage, tensor, write_zip

    strides = [step // values.itemsize for step in values.strides]
    kind = STORAGES[values.dtype.name] + "Storage"
    one = tensor(values.shape, strides, stored=storage(kind, "0", values.size))
    write_zip(path, b"\x80\x02" + one + b".", {"0": values.tobytes()})
