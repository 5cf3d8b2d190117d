"""A local stand-in for the Hugging Face hub, for its real client (HF_ENDPOINT).

It answers the calls that ``huggingface_hub`` makes to list a model and to fetch its
files, as the hub does: weights are behind a redirect and carry the SHA-256 of their
bytes, small files are not. It can also go wrong on purpose.
"""

import dataclasses
import functools
import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
"""Opens what is private or gated."""


WEIGHTS = (".safetensors", ".bin")
"""Endings of the files that the hub knows by the SHA-256 of their bytes."""


def _hash_of(path: Path) -> str:
    """What the hub states of a file: of a small one, what git calls its bytes."""
    data = path.read_bytes()
    if path.suffix in WEIGHTS:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclasses.dataclass(frozen=True)
class Instead:
    """What the stand-in answers in place of what it should.

    Attributes:
        status: 0: hang up without an answer; -1: say nothing until the end.
        path: regular expression of the paths that are so answered.
        headers: of the answer.
        text: of the answer.
    """

    status: int
    path: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    text: str = ""


@dataclasses.dataclass
class Repository:
    """A model on the stand-in.

    Attributes:
        revisions: folder of each branch or tag; its commit is made from its name.
        access: "public"; "private": as if absent without the token; "gated": listed,
            but no file without the token.
    """

    revisions: dict[str, Path]
    access: str = "public"

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit; None if there is none."""
        commits = {name: commit_of(name) for name in self.revisions}
        return revision if revision in commits.values() else commits.get(revision)

    def folder(self, commit: str) -> Path:
        """The folder of a commit."""
        return next(
            f for name, f in self.revisions.items() if commit_of(name) == commit
        )


def commit_of(revision: str) -> str:
    """The commit that the stand-in gives to a branch."""
    return hashlib.sha1(revision.encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """The stand-in; ``with HubServer(repositories) as hub:`` runs it.

    Attributes:
        requests: each as "GET /path", with " bytes=..." after it if a range was asked.
        authorized: of each of them, the token that came with it; "" if none.
        cut: by file name, after how many bytes the next answer breaks off.
        stall: by file name, after how many bytes each answer stops until the end.
        trickle: names of files of which a byte comes at a time.
        excess: by file name, how many bytes more than it has, or fewer, are stated.
        instead: what is answered where the path matches; None: the right answers.
        cdn: where weights are, another server with the same repositories; None: here.
        tells_refs: whether it answers which branches a model has.
        spoilt: names of files whose last byte is another one than is stated.
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, Repository]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.requests: list[str] = []
        self.authorized: list[str] = []
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.stalled = threading.Event()
        self.trickle: set[str] = set()
        self.excess: dict[str, int] = {}
        self.instead: Instead | None = None
        self.cdn: HubServer | None = None
        self.tells_refs = True
        self.spoilt: set[str] = set()
        self._ended = threading.Event()
        self.hash_of = functools.cache(_hash_of)

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        """Names of the files whose bytes were asked for."""
        return {
            line.split()[1].rpartition("/")[2]
            for line in self.requests
            if line.startswith("GET /") and not line.startswith("GET /api/")
        }

    def wait(self) -> None:
        """Hold an answer until the server ends."""
        self.stalled.set()
        self._ended.wait(60)

    def handle_error(self, request, client_address):
        """Print what went wrong here; a client that hangs up is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._ended.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer  # type: ignore[assignment]

    def log_message(self, format, *args):
        """Keep the terminal quiet."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":  # the client's own, not about models
            return self._send(404)
        part = self.headers.get("Range")
        self.server.requests.append(
            f"{self.command} {path}" + (f" {part}" if part else "")
        )
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server.authorized.append(token)
        instead = self.server.instead
        if instead is not None and re.search(instead.path, path):
            if instead.status > 0:
                return self._send(instead.status, instead.headers, instead.text)
            if instead.status < 0:
                self.server.wait()
            self.close_connection = True
            return None
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            return self._api(match[1], match[2] or "/revision/main")
        # A revision's slashes are quoted, which tells them from those of a file's name.
        asked = re.fullmatch(
            r"/(cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/([^?]+).*", self.path
        )
        if asked:
            return self._resolve(bool(asked[1]), *map(unquote, asked.groups()[1:]))
        return self._send(404)

    def _api(self, model_id: str, rest: str):
        """The branches, or a revision's listing in the client's two forms."""
        if rest == "/refs":
            return self._refs(model_id)
        _, what, revision = rest.split("/", 2)
        commit = self._commit(model_id, revision, what)
        if commit is None:
            return None
        folder = self.server.repositories[model_id].folder(commit)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        if what == "revision":
            siblings = [{"rfilename": name} for name in names]
            return self._json({"id": model_id, "sha": commit, "siblings": siblings})
        return self._json(
            [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name}
                for name, file in zip(names, files, strict=True)
            ]
        )

    def _refs(self, model_id: str):
        """The branches of a model, if the stand-in tells them."""
        if not self.server.tells_refs:
            return self._send(404)
        names = self.server.repositories[model_id].revisions
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_of(name)}
            for name in names
        ]
        return self._json({"branches": branches, "tags": [], "converts": []})

    def _commit(self, model_id: str, revision: str, what: str) -> str | None:
        """The commit to answer for; None: an error has been sent."""
        repository = self.server.repositories.get(model_id)
        knows_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        access = repository.access if repository and not knows_token else "public"
        if repository is None or access == "private":
            # The hub does not tell strangers what is private and what is absent.
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif access == "gated" and what == "resolve":
            self._send(401, {"X-Error-Code": "GatedRepo"})
        elif (commit := repository.commit(revision)) is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return commit
        return None

    def _resolve(self, from_cdn: bool, model_id: str, revision: str, name: str):
        """A file, or for weights the way to it."""
        commit = self._commit(model_id, revision, "resolve")
        if commit is None:
            return
        headers = {"X-Repo-Commit": commit}
        file = self.server.repositories[model_id].folder(commit) / name
        if not file.is_file():
            self._send(404, headers | {"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{self.server.hash_of(file)}"'
        if file.suffix in WEIGHTS and not from_cdn:
            headers["X-Linked-Etag"] = etag
            stated = file.stat().st_size + self.server.excess.get(name, 0)
            headers["X-Linked-Size"] = str(stated)
            headers["Location"] = (
                f"{(self.server.cdn or self.server).url}/cdn{self.path}"
            )
            self._send(302, headers)
            return
        self._file(file, headers | {"ETag": etag})

    def _file(self, file: Path, headers: dict[str, str]):
        data, start = file.read_bytes(), 0
        if file.name in self.server.spoilt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        stated = len(data) - start + self.server.excess.get(file.name, 0)
        headers["Content-Length"] = str(stated)
        self._send(206 if asked else 200, headers, body=False)
        if self.command == "HEAD":
            return
        data = data[start:]
        stop = self.server.stall.get(file.name)
        cut = stop if stop is not None else self.server.cut.pop(file.name, None)
        if file.name in self.server.trickle:
            self.server.stalled.set()
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        self.wfile.write(data[:cut])
        if stop is not None:
            self.wfile.flush()
            self.server.wait()
        if cut is not None or file.name in self.server.excess:
            self.close_connection = True

    def _json(self, value):
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value))

    def _send(self, status: int, headers=None, text: str = "", body: bool = True):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())
