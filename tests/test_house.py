"""The rooms of the package: what lies where, and which way imports go."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxheads
from jaxheads.studies import registry

HOUSE = Path(jaxheads.__file__).parent
ROOT = {"__init__.py", "__main__.py", "errors.py", "stops.py"}
"""All that lies outside of the rooms."""
FLOORS = (
    "errors",
    "stops",
    "models",
    "runs",
    "statistics",
    "icl",
    "engine",
    "tokenizer",
    "weights",
    "heads",
    "scores",
    "report",
    "training",
    "studies",
    "cli",
    "__main__",
)
"""Each imports from those before it only."""
WITHOUT_JAX = ("errors", "stops", "statistics", "icl", "heads", "report", "cli")
"""Rooms whose modules load no JAX, and of a study the files that state what is asked
or read what was found."""
OF_STUDIES = (
    *("registry", "options", "config", "protocols"),
    *("claims", "claims_page", "figures", "findings", "page", "tables", "terminal"),
)
UPWARDS = {
    # Public names, loaded when they are asked for.
    ("__init__.py", "heads"),
    ("__init__.py", "models"),
    ("__init__.py", "weights"),
}


def files() -> list[Path]:
    """All modules, those of the linked room of models too."""
    rooms = [path for path in HOUSE.iterdir() if path.is_dir()]
    inside = [path for room in rooms for path in room.rglob("*.py")]
    return sorted([*HOUSE.glob("*.py"), *inside])


def imported(path: Path) -> Iterator[str]:
    """Modules that a file names in its imports, wherever they stand in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "jaxheads":
                yield from (f"jaxheads.{alias.name}" for alias in node.names)
            yield node.module


def rooms_of(path: Path) -> set[str]:
    """The rooms that a file imports from, and packages of others."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "jaxheads":
            found.add(parts[0])
        elif len(parts) > 1:
            found.add(parts[1])
    return found


def test_nothing_else_lies_at_the_root():
    assert {path.name for path in HOUSE.glob("*.py")} == ROOT
    rooms = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(FLOORS) - {path.removesuffix(".py") for path in ROOT}


def test_imports_go_down():
    wrong = []
    for path in files():
        inside = path.relative_to(HOUSE)
        here = inside.parts[0].removesuffix(".py")
        for room in rooms_of(path) & set(FLOORS):
            above = here not in FLOORS or FLOORS.index(room) > FLOORS.index(here)
            if above and (inside.as_posix(), room) not in UPWARDS:
                wrong.append(f"{inside} imports {room}")
    assert not wrong


def test_no_list_but_the_registry_names_every_study():
    """Else a study were added there, too."""
    folders = [path.rpartition(".")[2] for path in registry.STUDIES.values()]
    for path in (HOUSE / "studies").glob("*.py"):
        named = [name for name in folders if f"studies.{name}" in path.read_text()]
        assert len(named) < 5 or path.name in ("registry.py", "protocols.py"), path


def test_what_states_and_what_reads_loads_no_jax():
    paths = [path.relative_to(HOUSE).with_suffix("") for path in files()]
    light = [
        ".".join(("jaxheads", *path.parts)).removesuffix(".__init__")
        for path in paths
        if path.parts[0] in WITHOUT_JAX
        or (path.parts[0] == "studies" and path.name in OF_STUDIES)
    ]
    assert len(light) > 70
    code = f"import sys, {', '.join(light)}; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
