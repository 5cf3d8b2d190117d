"""Every example runs: the scripts as they are, the notebook cell by cell.

The two scripts for several devices and processes are in test_processes.py.
"""

import ast
import csv
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
from synthetic_run import write_run

EXAMPLES = Path(__file__).parents[1] / "examples"
ELSEWHERE = {"several_gpus.py", "tpu_vm.py"}
FOR_A_MODEL = {
    "custom_score.py": "correlation with the induction score over 18 heads: ",
    "custom_task.py": "... with random ones, 20 draws: 0.",
    "kinds_of_ablation.py": "output := 0, patterns preserved",
    "vectorised_ablation.py": "  14 heads 0.",
}
"""Scripts that take a source, and what each of them says."""

TRAINS = "train_without_copying.py"

pytestmark = pytest.mark.usefixtures("quick_compilation")


def run(name: str, *arguments, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_script_is_run_by_a_test():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*FOR_A_MODEL, *ELSEWHERE, "read_a_run.py", TRAINS}


SLOW = ("custom_task.py", "kinds_of_ablation.py")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in FOR_A_MODEL
    ],
)
def test_a_script_runs_on_any_model(name, model_folder, monkeypatch, capsys):
    run(name, model_folder, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert FOR_A_MODEL[name] in said
    assert "nan" not in said


@pytest.mark.slow
def test_two_objectives_are_trained_and_compared(tmp_path, monkeypatch, capsys):
    run(TRAINS, tmp_path / "runs", 6, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "hapax, means over seeds (0, 1), at steps 0 1 2 3 4 5 6" in said
    assert said.count("loss without copies") == 2 and "nan" not in said


def test_a_run_is_read_into_tables(tmp_path, monkeypatch, capsys):
    made = write_run(tmp_path / "run")
    table = tmp_path / "heads.csv"
    run("read_a_run.py", made.path, table, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "accuracy lost" in said and "layer_matched" in said
    rows = list(csv.DictReader(table.read_text().splitlines()))
    scores = made.arrays["score/induction"]
    assert [float(row["induction"]) for row in rows] == pytest.approx(scores.ravel())
    assert (rows[-1]["layer"], rows[-1]["head"]) == ("5", "4")


def cells(kind: str) -> list[dict]:
    book = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == kind]


def test_the_notebook_uses_names_that_exist():
    names: dict = {}
    trees = [ast.parse("".join(cell["source"])) for cell in cells("code")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)
    used = 0
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            if isinstance(module, ModuleType):
                assert hasattr(module, node.attr), ast.unparse(node)
                used += 1
    assert used > 30


def test_the_notebook_holds_what_its_cells_put_out():
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all(cell["outputs"] for cell in code)
    kinds = [kind for cell in code for out in cell["outputs"] for kind in out]
    assert "traceback" not in kinds
    shown = [
        kind for cell in code for out in cell["outputs"] for kind in out.get("data", ())
    ]
    assert shown.count("image/png") == 2
    assert (EXAMPLES / "tour.ipynb").stat().st_size < 300_000


@pytest.mark.slow
def test_the_notebook_runs_cell_by_cell_on_any_model(model_folder, capsys):
    names: dict = {"__name__": "__main__"}
    for cell in cells("code"):
        code = "".join(cell["source"])
        exec(code.replace('"smollm2-135m-instruct"', repr(str(model_folder))), names)
    said = capsys.readouterr().out
    assert "3 layers of 6 query" in said and "over 18 heads" in said
    assert "nan" not in said
