"""The built-in tasks, and the loader of the reference studies' folders."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxheads.errors import UserError
from jaxheads.icl import generators
from jaxheads.icl.tasks import load_task, load_tasks, task_names

REFERENCE = Path(__file__).parents[3] / "shared" / "tasks"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference studies' folders are not here"
)

DIGEST = """
import hashlib, json
from jaxheads.icl.tasks import load_tasks
tasks = [(t.name, t.kind, t.inputs, t.outputs) for t in load_tasks(None)]
print(hashlib.sha256(json.dumps(tasks).encode()).hexdigest())
"""


def write(folder, name, items):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(items if isinstance(items, str) else json.dumps(items))
    return path


def pair(given: object = "a", wanted: object = "b") -> dict[str, object]:
    return {"input": given, "output": wanted}


@pytest.mark.parametrize("name", task_names())
def test_built_in_tasks_are_large_distinct_and_complete(name):
    task = load_task(name)
    assert len(task) == len(set(task.inputs)) == len(task.outputs) >= 110
    for text in (*task.inputs, *task.outputs):
        assert text and text == text.strip() and "\t" not in text
        assert "\n" not in text or name == "commonsense_qa"
    assert task.source == "built-in"
    assert len(set(task.outputs)) > 1


@pytest.mark.parametrize("name", task_names("extractive"))
def test_extractive_answers_are_a_part_of_the_query(name):
    for given, wanted in zip(*columns_of(name), strict=True):
        assert wanted in given


LISTS = [name for name in task_names("extractive") if name[-1] in "35"]


@pytest.mark.parametrize("name", LISTS)
def test_answers_of_list_tasks_are_one_of_the_words(name):
    task = load_task(name)
    size = int(name[-1])
    places = set()
    for given, wanted in zip(task.inputs, task.outputs, strict=True):
        words = given.split(", ")
        assert len(words) == len(set(words)) == size
        places.add(words.index(wanted))
    if name.startswith("choose"):
        assert places == {{"f": 0, "m": size // 2, "l": size - 1}[name[7]]}
    else:
        assert places == set(range(size))


def test_there_are_enough_tasks_of_both_kinds():
    assert (len(task_names("abstractive")), len(task_names("extractive"))) == (41, 29)
    assert len(task_names()) == len(set(task_names()))
    with pytest.raises(UserError, match="'other'"):
        task_names("other")


def test_words_stand_in_one_category():
    rows = generators.read_facts("words")
    assert len(rows) == len({word for word, _ in rows})
    assert all(word.isascii() and word.isalpha() and word.islower() for word, _ in rows)


@pytest.mark.parametrize("name", task_names("abstractive"))
def test_facts_are_written_once(name):
    if name in generators._FACTS:
        rows = generators.read_facts(name)
        assert len(rows) == len({given for given, _ in rows})


@pytest.mark.parametrize(
    "name, given, wanted",
    [
        ("antonym", "hot", "cold"),
        ("country-capital", "France", "Paris"),
        ("capitalize", "zebra", "Zebra"),
        ("capitalize_first_letter", "zebra", "Z"),
        ("capitalize_second_letter", "zebra", "E"),
        ("capitalize_last_letter", "zebra", "A"),
        ("lowercase_first_letter", "ZEBRA", "z"),
        ("lowercase_last_letter", "ZEBRA", "a"),
        ("next_capital_letter", "zebra", "A"),
        ("next_capital_letter", "apple", "B"),
        ("word_length", "zebra", "5"),
        ("next_item", "Sunday", "Monday"),
        ("next_item", "I", "J"),
        ("next_item", "IX", "X"),
        ("next_item", "nineteen", "twenty"),
        ("prev_item", "January", "December"),
        ("prev_item", "IX", "VIII"),
        ("prev_item", "third", "second"),
        ("french-english", "chien", "dog"),
    ],
)
def test_known_pairs(name, given, wanted):
    task = load_task(name)
    assert task.outputs[task.inputs.index(given)] == wanted


@pytest.mark.parametrize("name, missing", [("next_item", "z"), ("prev_item", "a")])
def test_sequences_end(name, missing):
    assert missing not in load_task(name).inputs


def test_capital_index_counts_from_one():
    task = load_task("capital_index")
    for given, wanted in zip(task.inputs, task.outputs, strict=True):
        assert given[int(wanted) - 1].isupper()
        assert sum(letter.isupper() for letter in given) == 1


@pytest.mark.parametrize("name", ["alphabetically_first_5", "alphabetically_last_3"])
def test_alphabetical_tasks(name):
    task = load_task(name)
    place = 0 if "first" in name else -1
    for given, wanted in zip(task.inputs, task.outputs, strict=True):
        assert sorted(given.split(", "))[place] == wanted


@pytest.mark.parametrize(
    "name, stem", [("animal_v_object_3", "animal"), ("fruit_v_animal_5", "fruit")]
)
def test_one_word_of_the_wanted_kind(name, stem):
    wanted_kind = set(generators.words(stem))
    for given, wanted in zip(*columns_of(name), strict=True):
        assert [word for word in given.split(", ") if word in wanted_kind] == [wanted]


def columns_of(name):
    task = load_task(name)
    return task.inputs, task.outputs


def test_tasks_are_the_same_in_every_process():
    def digest(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-W", "error", "-c", DIGEST]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert digest("1") == digest("2")


def test_nothing_here_needs_jax_or_a_model():
    allowed = {*sys.stdlib_module_names, "numpy", "pyarrow"}
    for path in Path(generators.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            elif not isinstance(node, ast.Import):
                continue
            for name in names:
                inner = name.startswith(("jaxheads.icl", "jaxheads.errors"))
                assert inner or name.split(".")[0] in allowed, (path.name, name)


def test_unknown_names_get_the_closest_ones(tmp_path):
    with pytest.raises(UserError, match="antonym"):
        load_task("antonyms")
    write(tmp_path, "rivers", [pair()])
    with pytest.raises(UserError, match="rivers"):
        load_task("river", tmp_path)


def test_the_folder_comes_first_and_tells_the_kind(tmp_path):
    path = write(tmp_path / "deep" / "abstractive", "antonym", [pair("up", " down ")])
    task = load_task("antonym", tmp_path)
    assert task.outputs == ("down",)
    assert (task.kind, task.source) == ("abstractive", str(path))
    assert load_task("synonym", tmp_path).source == "built-in"
    write(tmp_path, "choose_last_of_3_val", [pair()])
    write(tmp_path, "rivers", [pair()])
    assert load_task("choose_last_of_3_val", str(tmp_path)).kind == "extractive"
    assert load_task("rivers", tmp_path).kind == "unknown"


def test_outputs_of_files_become_text(tmp_path):
    items = [pair("a", ["x", "y"]), pair("b", 3), pair("b", 2.5), pair("d", "é")]
    path = write(tmp_path, "odd", items)
    assert load_task("odd", tmp_path).outputs == ("x", "3", "2.5", "é")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert load_task("odd", tmp_path).inputs == ("a", "b", "b", "d")


def test_items_without_an_answer_are_left_out_and_counted(tmp_path):
    write(tmp_path, "holes", [pair("a", "x"), pair("b", ""), pair("c", "z")])
    task = load_task("holes", tmp_path)
    assert (task.inputs, task.outputs, task.skipped) == (("a", "c"), ("x", "z"), 1)
    assert load_task("antonym").skipped == 0


@pytest.mark.parametrize(
    "content, message",
    [
        ('[\n{"input": "a",\n "output" "b"}]', "line 3"),
        ("", "line 1"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "a list of objects .*, it is a dict"),
        ("[]", "holds no items with"),
        ([pair(), "b"], 'item 2 .*it is "b"'),
        ([pair(), {"input": "a"}], "item 2 .*its output is null"),
        ([{"output": "a"}], "item 1 .*its input is null"),
        ([pair(), pair(), pair(" ", "b")], 'item 3 .*its input is " "'),
        ([pair("a", ""), pair("b", " ")], "holds no items with an answer"),
        ([pair("a", [])], r"item 1 .*its output is \[\]"),
        ([pair("a", True)], "item 1 .*its output is true"),
        ([pair(["a"], "b")], "item 1 .*its input is "),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = write(tmp_path, "broken", content)
    with pytest.raises(UserError, match=message) as caught:
        load_task("broken", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_text_are_named(tmp_path):
    (tmp_path / "broken.json").write_bytes(b'["\xff\xfe"]')
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 2\)"):
        load_task("broken", tmp_path)


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing is there"):
        load_task("antonym", tmp_path / "nowhere")
    with pytest.raises(UserError, match="a file is there"):
        load_task("antonym", write(tmp_path, "a", [pair()]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.json file"):
        load_tasks(None, tmp_path / "empty")
    with pytest.raises(UserError, match="none was named"):
        load_tasks([])


def test_a_name_in_two_places_is_refused(tmp_path):
    for place in ("one", "two"):
        write(tmp_path / place, "rivers", [pair()])
    with pytest.raises(UserError, match="rivers is in 2 files"):
        load_task("rivers", tmp_path)


def test_small_tasks_are_refused(tmp_path):
    items = [pair(str(number // 2)) for number in range(8)]
    write(tmp_path, "small", items)
    message = "has 4 items .* 11 are needed for 10 shots and a query"
    with pytest.raises(UserError, match=message):
        load_tasks(["small"], tmp_path, min_items=11)
    assert len(load_tasks(["small"], tmp_path, min_items=4)[0]) == 8


def test_a_folder_without_names_gives_each_task_once(tmp_path):
    for name in ("one", "one_train", "one_val", "two_val"):
        write(tmp_path, name, [pair()])
    write(tmp_path / ".git", "three", "broken")
    assert [task.name for task in load_tasks(None, tmp_path)] == ["one", "two_val"]
    assert load_task("one_train", tmp_path).name == "one_train"


def test_without_names_and_folder_every_built_in_task_comes():
    assert tuple(task.name for task in load_tasks(None, min_items=60)) == task_names()


@needs_reference
def test_the_reference_folders_load():
    tasks = {task.name: task for task in load_tasks(None, REFERENCE, min_items=11)}
    assert len(tasks["antonym"]) == 2398
    assert tasks["antonym"].kind == "abstractive"
    assert tasks["animal_v_object_3"].kind == "extractive"
    assert tasks["capital_index"].outputs[0] == "5"
    assert "antonym_val" not in tasks
    assert tasks["present-past"].skipped == 1
    assert load_task("antonym_val", REFERENCE).name == "antonym_val"
    assert load_task("bind_shape_val", REFERENCE).kind == "extractive"
    assert load_task("bind_capital_val", REFERENCE).kind == "abstractive"
