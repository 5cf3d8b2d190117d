"""Models from a local stand-in for the hub, by the real client in its own process."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tokenizers
from hub_server import TOKEN, HubServer, Instead, Repository, commit_of
from model_folder import write_folder
from test_cli import SMALL as SMALL_STUDY

from jaxheads.models import llama
from jaxheads.models.parameters import is_leaf
from jaxheads.weights.digest import params_sha256

TINY = llama.Config(3, 22, 6, 2, 10, 34, 41, 64, tied=True)
LARGE = llama.Config(2, 22, 3, 1, 10, 34, 150_000, 64, tied=True)
"""13 MB in one tensor: the client writes 10 MB at a time, so part of it can be kept."""
SMALL = {"config.json", "tokenizer.json", "tokenizer_config.json"}
SHARDS = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}

# The client reads HF_HOME and HF_ENDPOINT when it is imported, hence a process; one
# answers many questions, because the imports take seconds.
WORKER = """
import contextlib, io, json, os, resource, sys
from jaxheads.__main__ import main
from jaxheads.errors import UserError
from jaxheads.weights.model import load
from jaxheads.weights.hub import fetch_from_hub

def fetch(model_id, revision=None):
    return sorted(file.name for file in fetch_from_hub(model_id, revision).iterdir())

def provenance(source, revision=None):
    return load(source, revision).provenance.to_dict()

def command(*arguments):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            main(list(arguments))
        except SystemExit as stop:
            return stop.code, stderr.getvalue()

def login(token):
    os.environ["HF_TOKEN"] = token

def largest_file(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        answer = globals()[name](*arguments)
    except UserError as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A process that loads from the stand-in, by the functions of WORKER."""

    def __init__(self, hub: HubServer, home: Path, **environment: str):
        settings = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, **environment}
        settings["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=kept | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, *arguments) -> None:
        """Call a function and leave its answer for later."""
        assert self.process.stdin
        print(json.dumps([name, arguments]), file=self.process.stdin, flush=True)

    def __call__(self, name: str, *arguments):
        """Call a function; an error of the user's is its sentence."""
        self.ask(name, *arguments)
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process, at once."""
        with self.process:
            self.process.kill()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> SimpleNamespace:
    """Folders of models as the repositories hold them, and the sums of their params."""
    root, sums = tmp_path_factory.mktemp("models"), {}

    def write(name: str, config, seed: int, shards: int = 1) -> Path:
        rng = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
            llama.abstract(config),
            is_leaf=is_leaf,
        )
        sums[name] = params_sha256(params)
        return write_folder(root / name, config, params, shards)

    main = write("main", TINY, 0)
    copies = "pytorch_model.bin consolidated.safetensors model.onnx onnx/model.bin "
    copies += "original/model.safetensors flax_model.msgpack tf_model.h5 README.md"
    for copy in copies.split():
        (main / copy).parent.mkdir(exist_ok=True)
        (main / copy).write_bytes(b"not to be fetched")
    step = write("step1000", TINY, 1, shards=2)
    vocabulary = {chr(97 + i): i for i in range(26)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(step / "tokenizer.json"))
    (step / "tokenizer_config.json").write_text('{"bos_token": "b"}')
    write("large", LARGE, 2)
    write("sharded", LARGE, 3, shards=2)
    write("lost", TINY, 4, shards=2)
    (root / "lost" / min(SHARDS)).unlink()
    shards = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    index = json.dumps({"weight_map": shards})
    plain = {
        "torch": ["config.json", "pytorch_model.bin", "tf_model.h5"],
        "torch-shards": ["config.json", "pytorch_model.bin.index.json"],
        "gguf": ["tiny.Q4_0.gguf", "tiny.Q8_0.gguf", "config.json"],
        "original": ["consolidated.00.pth", "params.json"],
        "bare": ["config.json", "README.md"],
    }
    plain["torch-shards"] += shards.values()
    for name, files in plain.items():
        (root / name).mkdir()
        for file in files:
            (root / name / file).write_text(index if "index" in file else "{}")
    return SimpleNamespace(root=root, sums=sums)


@pytest.fixture(scope="module")
def hub(models):
    """The stand-in, with a repository for each case."""
    main, step = models.root / "main", models.root / "step1000"
    tiny = {"main": main, "step1000": step, "refs/pr/1": step}
    repositories = {
        "owner/tiny": Repository(tiny),
        "owner/private": Repository({"main": main}, "private"),
        "owner/gated": Repository({"main": main}, "gated"),
        "openai-community/gpt2-xl": Repository(tiny),
        "owner/heavy": Repository({"main": models.root / "large"}),
        "owner/pythia-tiny": Repository({"main": main, "step0": main}),
    }
    for folder in models.root.iterdir():
        repositories[f"owner/{folder.name}"] = Repository({"main": folder})
    with HubServer(repositories) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """HF_HOME of all clients."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub, home):
    """A client with a network and no token."""
    with contextlib.closing(Client(hub, home)) as client:
        yield client


@pytest.fixture(scope="module")
def offline(hub, home):
    """A client whose offline switch is on."""
    with contextlib.closing(Client(hub, home, HF_HUB_OFFLINE="1")) as client:
        yield client


@pytest.fixture(scope="module")
def cached(online) -> str:
    """A model that is in the cache."""
    online("fetch", "owner/main")
    return "owner/main"


def snapshot(home: Path, model_id: str, revision: str = "main") -> Path:
    """Where the cache keeps a revision."""
    name = f"models--{model_id.replace('/', '--')}"
    return home / "hub" / name / "snapshots" / commit_of(revision)


@pytest.mark.parametrize(
    ("revision", "files"),
    [
        (None, {"config.json", "model.safetensors"}),
        ("step1000", {*SMALL, *SHARDS, "model.safetensors.index.json"}),
    ],
)
def test_a_revision_loads_and_then_never_asks_again(
    hub, home, models, online, offline, revision, files
):
    hub.requests.clear()
    name = revision or "main"
    first = online("provenance", "owner/tiny", revision)
    assert first["params_sha256"] == models.sums[name]
    assert (first["revision"], first["commit"]) == (name, commit_of(name))
    # The same bytes at both revisions are fetched once.
    assert hub.fetched() | {"config.json"} == files
    assert {file.name for file in snapshot(home, "owner/tiny", name).iterdir()} == files
    hub.requests.clear()
    assert online("provenance", "owner/tiny", revision) == first
    assert (
        online("provenance", "owner/tiny", commit_of(name))["commit"]
        == (first["commit"])
    )
    assert offline("provenance", "owner/tiny", revision) == first
    assert hub.requests == []


def test_a_revision_may_hold_a_slash(models, online):
    found = online("provenance", "owner/tiny", "refs/pr/1")
    assert found["params_sha256"] == models.sums["step1000"]
    assert found["commit"] == commit_of("refs/pr/1")


def test_a_preset_has_revisions_too(models, online):
    found = online("provenance", "gpt2-xl", "step1000")
    assert found["params_sha256"] == models.sums["step1000"]
    assert (found["source"], found["commit"]) == ("gpt2-xl", commit_of("step1000"))


def test_a_broken_connection_is_resumed_where_it_broke(hub, models, online):
    hub.requests.clear()
    hub.cut["model.safetensors"] = 11_000_000
    found = online("provenance", "owner/large")
    assert found["params_sha256"] == models.sums["large"]
    ranges = [line.split()[-1] for line in hub.requests if "bytes=" in line]
    assert ranges == ["bytes=10485760-"]


def test_a_killed_download_is_not_a_model_and_goes_on(
    hub, home, models, online, offline
):
    folder = snapshot(home, "owner/sharded")
    index = models.root / "sharded" / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    broken = weight_map["model.embed_tokens.weight"]
    (whole,) = SHARDS - {broken}
    hub.stall[broken] = 11_000_000
    with contextlib.closing(Client(hub, home)) as killed:
        killed.ask("fetch", "owner/sharded")
        assert hub.stalled.wait(60)
        for _ in range(600):
            if (folder / whole).exists() and list(home.rglob("*.incomplete")):
                break
            time.sleep(0.05)
    assert (folder / whole).exists() and not (folder / broken).exists()
    assert "HF_HUB_OFFLINE is set and not all" in offline("fetch", "owner/sharded")
    hub.stall.clear()
    hub.requests.clear()
    found = online("provenance", "owner/sharded")
    assert found["params_sha256"] == models.sums["sharded"]
    assert broken in hub.fetched() and whole not in hub.fetched()


@pytest.mark.parametrize(
    ("model_id", "revision", "sentence"),
    [
        ("owner/absent", None, "no such public model and no local folder"),
        ("owner/private", None, "no such public model .*hf auth login"),
        ("owner/gated", None, "ask for it at https://huggingface.co/owner/gated"),
        ("owner/tiny", "step7", "at revision 'step7' .* no such revision: see the"),
        ("owner/pythia-tiny", "step7", "main, step0, .* to step143000"),
        ("owner/tiny", "f" * 40, "no such revision"),
        ("owner/a--b", None, "cannot be the name of a model"),
        ("owner/lost", None, "names model-00001.*, which the repository lacks"),
        ("owner/gguf", None, r"hf download owner/gguf tiny\.Q4_0\.gguf"),
        ("owner/original", None, r"neither config\.json nor weights .*\.00\.pth"),
        ("owner/bare", None, r"it has no weights in model\.safetensors"),
    ],
)
def test_what_cannot_be_fetched_says_why(hub, online, model_id, revision, sentence):
    hub.requests.clear()
    assert_sentence(online("provenance", model_id, revision), sentence)
    assert not any(name.endswith(("gguf", "pth", "bin")) for name in hub.fetched())


def assert_sentence(answer, pattern: str) -> None:
    """The answer is an error of one line that matches."""
    assert isinstance(answer, str), answer
    assert "could not be fetched from the hub: " in answer
    assert "\n" not in answer and "Error" not in answer
    assert re.search(pattern, answer), answer


def test_the_command_line_exits_2(online):
    code, stderr = online("command", "score", "owner/absent")
    assert code == 2
    assert_sentence(stderr.splitlines()[-1], "^jaxheads: 'owner/absent' could not")


COMMIT = commit_of("main")
NO_ANSWER = "no usable answer .*: check the network, and HF_ENDPOINT"
FILES, CDN = "^/owner/.*/resolve/", "^/cdn/"
LOOP = {"Location": f"/owner/ill/resolve/{COMMIT}/config.json"}
WAIT, DAYS = {"Retry-After": "1"}, {"Retry-After": "200000"}
PAGE = {"Content-Type": "text/html"}


def as_json(value, path: str = "^/api/models/owner/ill$") -> Instead:
    """An answer of the API."""
    headers = {"Content-Type": "application/json"}
    return Instead(200, path, headers, json.dumps(value))


def listing(*names, sha: object = COMMIT) -> Instead:
    """What the hub says that a repository holds."""
    siblings = [{"rfilename": name} for name in ("config.json", *names)]
    return as_json({"id": "owner/ill", "sha": sha, "siblings": siblings})


def file_with(**headers: str) -> Instead:
    """An answer to who asks for a file, with these headers besides the usual ones."""
    usual = {"ETag": '"1"', "X-Repo-Commit": COMMIT}
    return Instead(
        200, "/resolve/", usual | {k.replace("_", "-"): v for k, v in headers.items()}
    )


@pytest.mark.parametrize(
    ("instead", "sentence"),
    [
        (Instead(401), "does not accept your token: log in again"),
        (Instead(401, FILES), "does not accept your token: log in again"),
        (Instead(403, FILES), "your token does not allow it"),
        (Instead(404, "^/api/"), "does not give what it should .*404.*: try again"),
        (Instead(404, FILES), "does not give what it should .*404.*: try again later"),
        (Instead(429, "", WAIT), "too many requests"),
        (Instead(429, FILES, DAYS), "too many requests"),
        (Instead(429, FILES, {"RateLimit": '"api";r=0;t=9999'}), "too many requests"),
        (Instead(500), "the hub is in trouble .*500.*: try again later"),
        (Instead(503), "the hub is in trouble .*503.*: try again later"),
        (Instead(503, FILES, DAYS), "the hub is in trouble .*503.*: try again later"),
        (Instead(0), NO_ANSWER),
        (Instead(200), NO_ANSWER),
        (Instead(302, "", {"Location": "/api/models/owner/ill"}), NO_ANSWER),
        (Instead(302, FILES, LOOP), NO_ANSWER),
        (Instead(200, "^/api/", PAGE, "<html>Log in</html>"), NO_ANSWER),
        (Instead(200, FILES, PAGE, "<html>Log in</html>"), NO_ANSWER),
        (as_json(None), NO_ANSWER),
        (as_json([]), NO_ANSWER),
        (as_json({"id": 1, "sha": 7, "siblings": 3}), NO_ANSWER),
        (listing(1), NO_ANSWER),
        (listing("model.safetensors", sha=7), NO_ANSWER),
        (listing("model.safetensors", sha="../../../../evil"), "no such revision"),
        (listing("../../../../evil", "EVIL"), "has no weights"),
        (file_with(ETag='"../../../../evil"'), NO_ANSWER),
        (file_with(ETag='W/"EVIL"'), NO_ANSWER),
        (file_with(X_Linked_ETag='"EVIL"'), NO_ANSWER),
        (file_with(X_Repo_Commit="../../../../evil"), NO_ANSWER),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (Instead(429, FILES, WAIT), "too many requests"),
                (Instead(500, FILES), "the hub is in trouble .*500.*: try again later"),
                (Instead(503, CDN), "the hub is in trouble .*503.*: try again later"),
                (Instead(403, CDN), "your token does not allow it"),
                (Instead(0, FILES), NO_ANSWER),
            )
        ),
    ],
    ids=str,
)
def test_a_wrong_answer_is_one_sentence(
    hub, home, models, online, offline, cached, instead, sentence
):
    headers = {k: v.replace("EVIL", f"{home}-evil") for k, v in instead.headers.items()}
    text = instead.text.replace("EVIL", f"{home}-evil")
    hub.instead = dataclasses.replace(instead, headers=headers, text=text)
    assert_ill(hub, home, models, online, offline, cached, sentence)


@pytest.mark.parametrize(
    ("excess", "sentence"), [(5, NO_ANSWER), (-5, "came with the hash")]
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.slow
def test_a_short_or_a_long_file_is_one_sentence(
    hub, home, models, online, offline, cached, name, excess, sentence
):
    hub.excess[name] = excess
    assert_ill(hub, home, models, online, offline, cached, sentence)


def assert_ill(hub, home, models, online, offline, cached, sentence) -> None:
    """A hub that is ill: one sentence, no model; once it is well, all goes on."""
    hub.repositories["owner/ill"] = Repository({"main": models.root / "main"})
    shutil.rmtree(home / "hub" / "models--owner--ill", ignore_errors=True)
    try:
        code, stderr = online("command", "score", "owner/ill")
        found = online("provenance", cached)
    finally:
        hub.instead = None
        hub.excess.clear()
    assert code == 2 and "Traceback" not in stderr
    assert_sentence(stderr.splitlines()[-1], sentence)
    assert found["commit"] == COMMIT
    assert_sentence(offline("fetch", "owner/ill"), "HF_HUB_OFFLINE is set")
    assert not list(home.parent.glob("*evil*"))
    found = online("provenance", "owner/ill")
    assert found["params_sha256"] == models.sums["main"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["^/api/", "model.safetensors"])
def test_a_silent_hub_is_given_up(hub, home, models, where):
    shutil.rmtree(home / "hub" / "models--owner--silent", ignore_errors=True)
    hub.repositories["owner/silent"] = Repository({"main": models.root / "large"})
    timeouts = {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    with contextlib.closing(Client(hub, home, **timeouts)) as client:
        if where == "model.safetensors":
            hub.stall[where] = 0
        else:
            hub.instead = Instead(-1, where)
        answer = client("fetch", "owner/silent")
        hub.stall.clear()
        hub.instead = None
        assert_sentence(answer, "no usable answer .*timed out")
        assert "model.safetensors" in client("fetch", "owner/silent")


def run_command(hub, home, *arguments, **environment: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    given = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxheads", *map(str, arguments)],
        env=kept | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_a_slow_download(hub, home, models, online, tmp_path):
    hub.repositories["owner/slow"] = Repository({"main": models.root / "main"})
    hub.trickle.add("model.safetensors")
    hub.stalled.clear()
    with run_command(hub, home, "convert", "owner/slow", tmp_path / "out") as process:
        assert hub.stalled.wait(60)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        printed, said = process.communicate()
    hub.trickle.clear()
    assert process.returncode == 130 and time.monotonic() - start < 10
    assert said.splitlines()[-1].startswith("jaxheads: interrupted: the same command")
    assert not printed and "Traceback" not in said and not list(tmp_path.iterdir())
    assert online("provenance", "owner/slow")["params_sha256"] == models.sums["main"]


def test_another_host_gets_no_token(hub, models, online):
    name, folder = "owner/elsewhere", models.root / "main"
    hub.repositories[name] = Repository({"main": folder}, "private")
    online("login", TOKEN)
    with HubServer({name: Repository({"main": folder})}) as other:
        hub.cdn = other
        try:
            assert online("provenance", name)["params_sha256"] == models.sums["main"]
            location = {"Location": f"{other.url}/api/models/{name}"}
            hub.instead = Instead(302, "^/api/", location)
            assert_sentence(online("fetch", name, "absent"), "no such revision")
        finally:
            hub.cdn = hub.instead = None
            online("login", "")
    assert TOKEN in hub.authorized
    assert len(other.authorized) > 1 and set(other.authorized) == {""}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_token_is_written_nowhere(hub, model_folder, tmp_path, place):
    hub.repositories["owner/hidden"] = Repository({"main": model_folder}, "private")
    home, given = tmp_path / "home", {"HF_TOKEN": TOKEN}
    if place == "file":
        home.mkdir()
        (home / "token").write_text(TOKEN)
        given = {}
    told, model = "", "owner/hidden"
    for code, *arguments in (
        (0, "score", model, *SMALL_STUDY, "--verbose", "--out", tmp_path / "run"),
        (0, "convert", model, tmp_path / "store", "--verbose"),
        (2, "score", "owner/absent", "--verbose", "--out", tmp_path / "absent"),
        (2, "score", model, "--revision=x", "--verbose", "--out", tmp_path / "absent"),
    ):
        with run_command(hub, home, *arguments, **given) as process:
            told += "".join(process.communicate())
        assert process.returncode == code, told
    (home / "token").unlink(missing_ok=True)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"report.html", "result.json", "jaxheads.json"} <= {p.name for p in written}
    assert TOKEN not in told
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    with zipfile.ZipFile(tmp_path / "run" / "arrays.npz") as arrays:
        assert not any(
            TOKEN.encode() in arrays.read(name) for name in arrays.namelist()
        )


def test_torch_weights_are_fetched_where_there_are_no_others(online):
    assert online("fetch", "owner/torch") == ["config.json", "pytorch_model.bin"]
    assert online("fetch", "owner/torch-shards") == [
        "config.json",
        "pytorch_model-1.bin",
        "pytorch_model-2.bin",
        "pytorch_model.bin.index.json",
    ]


def test_without_a_network_only_what_is_cached_loads(home, models, offline):
    # As copied from another machine: nothing says whether there is a tokenizer.
    folder = snapshot(home, "owner/copied", "step1")
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(models.root / "main" / name, folder)
    refs = folder.parents[1] / "refs"
    refs.mkdir()
    (refs / "step1").write_text(folder.name)
    found = offline("provenance", "owner/copied", "step1")
    assert found["params_sha256"] == models.sums["main"]
    assert (found["revision"], found["commit"]) == ("step1", folder.name)
    assert_sentence(offline("provenance", "owner/copied"), "HF_HUB_OFFLINE is set")


def test_weights_cached_without_their_tokenizer_get_it(home, online, offline):
    # As another program leaves them that needed no text.
    files = online("fetch", "owner/tiny", "refs/pr/1")
    (snapshot(home, "owner/tiny", "refs/pr/1") / "tokenizer.json").unlink()
    assert set(offline("fetch", "owner/tiny", "refs/pr/1")) == (
        set(files) - {"tokenizer.json"}
    )
    assert online("fetch", "owner/tiny", "refs/pr/1") == files


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", min(SHARDS), "tokenizer.json"]
)
def test_other_bytes_than_the_hub_states_are_not_kept(
    hub, home, models, online, offline, name
):
    model_id, folder = "owner/spoilt", snapshot(home, "owner/spoilt")
    hub.repositories[model_id] = Repository({"main": models.root / "step1000"})
    hub.spoilt.add(name)
    try:
        answer = online("provenance", model_id)
    finally:
        hub.spoilt.clear()
    stated = hub.hash_of(models.root / "step1000" / name)
    assert_sentence(answer, f"{name} came with the hash .* hub states {stated}: its")
    assert not (folder / name).exists()
    assert not (folder.parents[1] / "blobs" / stated).exists()
    if name != "tokenizer.json":  # weights are of use without it
        assert_sentence(offline("provenance", model_id), "HF_HUB_OFFLINE is set")
    found = online("provenance", model_id)
    assert found["params_sha256"] == models.sums["step1000"]
    assert (folder / name).exists()
    shutil.rmtree(folder.parents[1])


def test_an_adapter_is_not_left_out(models, hub, online):
    folder = Path(shutil.copytree(models.root / "main", models.root / "adapted"))
    (folder / "adapter_config.json").write_text("{}")
    hub.repositories["owner/adapted"] = Repository({"main": folder})
    assert_sentence(online("provenance", "owner/adapted"), "has adapter_config.json")


def test_a_full_disk_is_one_sentence(home, online):
    online("largest_file", 5_000_000)  # as a disk with less room would have it
    answer = online("fetch", "owner/heavy")
    online("largest_file", None)
    assert_sentence(answer, "does not take its files .* or set HF_HOME")
    assert not list((home / "hub" / "models--owner--heavy").rglob("*.incomplete"))
    assert "model.safetensors" in online("fetch", "owner/heavy")


def test_a_token_opens_what_is_private_or_gated(models, online):
    online("login", TOKEN)
    try:
        for model_id in ("owner/private", "owner/gated"):
            found = online("provenance", model_id)
            assert found["params_sha256"] == models.sums["main"]
        online("login", "hf_wrong")
        assert_sentence(online("fetch", "owner/private", "x"), "no such public model")
    finally:
        online("login", "")
