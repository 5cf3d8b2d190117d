"""The built-in tasks that the papers name: all there, and their answers follow."""

import re
from collections import Counter

import pytest
from test_cli import jaxheads

from jaxheads.icl.generators import read_facts, read_rows, words
from jaxheads.icl.tasks import load_task, load_tasks, task_names

SCORING = [
    "product-company",
    "landmark-country",
    "sentiment",
    "antonym",
    "synonym",
    "lowercase_first_letter",
    "capitalize",
    "english-spanish",
    "english-french",
    "conll2003_person",
    "conll2003_location",
    "concept_v_object_3",
    "concept_v_object_5",
    "object_v_concept_3",
    "object_v_concept_5",
    "fruit_v_animal_3",
    "fruit_v_animal_5",
    "color_v_animal_3",
    "color_v_animal_5",
    "adjective_v_verb_3",
    "adjective_v_verb_5",
    "verb_v_adjective_3",
    "verb_v_adjective_5",
    "animal_v_object_5",
    "choose_first_of_3",
    "choose_middle_of_3",
    "choose_middle_of_5",
    "choose_last_of_3",
    "choose_last_of_5",
]
EVALUATION = [
    "ag_news",
    "capitalize_first_letter",
    "conll2003_organization",
    "national_parks",
    "park-country",
    "person-occupation",
    "animal_v_object_3",
    "choose_first_of_5",
    "english-german",
    "person-instrument",
    "commonsense_qa",
    "capital_index",
    "capitalize_second_letter",
    "abstract_clf",
    "french-english",
    "bind_fruit",
    "bind_capital",
    "bind_capital_par",
    "bind_shape",
]
# Todd et al. 2024; their 57th, squad_val, asks about whole paragraphs: left out.
TODD = [
    "ag_news",
    "antonym",
    "capitalize",
    "capitalize_first_letter",
    "capitalize_second_letter",
    "capitalize_last_letter",
    "commonsense_qa",
    "country-capital",
    "country-currency",
    "english-french",
    "english-german",
    "english-spanish",
    "landmark-country",
    "lowercase_first_letter",
    "lowercase_last_letter",
    "national_parks",
    "next_capital_letter",
    "next_item",
    "park-country",
    "person-instrument",
    "person-occupation",
    "person-sport",
    "present-past",
    "prev_item",
    "product-company",
    "sentiment",
    "singular-plural",
    "synonym",
    "word_length",
    "conll2003_location",
    "conll2003_organization",
    "conll2003_person",
] + [
    f"{stem}_{size}"
    for size in (3, 5)
    for stem in [
        "adjective_v_verb",
        "verb_v_adjective",
        "animal_v_object",
        "color_v_animal",
        "fruit_v_animal",
        "concept_v_object",
        "object_v_concept",
        "choose_first_of",
        "choose_middle_of",
        "choose_last_of",
        "alphabetically_first",
        "alphabetically_last",
    ]
]
PATTERNS = {"repetition": "abab", "recursion": "abbb", "centre_embedding": "abcba"}


def items(name: str) -> list[tuple[str, str]]:
    """Pairs of a built-in task."""
    task = load_task(name)
    return list(zip(task.inputs, task.outputs, strict=True))


def counts(name: str) -> Counter[str]:
    """How often each answer comes."""
    return Counter(load_task(name).outputs)


@pytest.mark.parametrize(
    "names, count",
    [(SCORING, 29), (EVALUATION, 19), (TODD, 56)],
    ids=["scoring", "evaluation", "todd"],
)
def test_every_task_of_the_papers_suffices_for_10_shots_and_100_queries(names, count):
    assert len(set(names)) == len(names) == count
    assert {task.source for task in load_tasks(names, min_items=110)} == {"built-in"}


def test_no_task_both_scores_and_evaluates():
    assert not set(SCORING) & set(EVALUATION)


CONTEXTS = {
    "bind_fruit": r"(Alice) likes eating the (.+)\. (Bob) likes eating the (.+)\. "
    r"Which fruit does (\w+) like\?",
    "bind_shape": r"The (red) shape is (.+)\. The (blue) shape is (.+)\. "
    r"Which shape is (\w+) color\?",
    "bind_capital": r"(Alice) lives in the capital city of (.+)\. (Bob) lives in the "
    r"capital city of (.+)\. Which city does (\w+) live in\?",
    "bind_capital_par": r"(Alice) and (Bob) live in the capital cities of (.+) and "
    r"(.+) respectively\. Which city does (\w+) live in\?",
}


@pytest.mark.parametrize("name, form", CONTEXTS.items())
def test_bound_answers_follow_from_the_context(name, form):
    capital = dict(read_facts("country-capital"))
    contexts, asked = set(), Counter()
    for given, wanted in items(name):
        found = re.fullmatch(form, given)
        assert found, given
        one, a, two, b, who = found.groups()
        if name == "bind_capital_par":
            a, two = two, a
        bound = {one: a, two: b}
        assert len(bound) == 2 and a != b
        answer = capital[bound[who]] if "capital" in name else bound[who]
        assert wanted == answer
        if "capital" in name:
            assert wanted not in given
        contexts.add((a, b))
        asked[who] += 1
    assert len(contexts) == 300  # each context once
    assert set(asked.values()) == {150}


def test_abstract_classes_need_both_words():
    months = set(words("months", of="sequences"))
    fruit, animal = set(words("fruit")), set(words("animal"))
    assert len(months) == 12
    for given, wanted in items("abstract_clf"):
        first, second = given.split(" ")
        assert (second in fruit) != (second in animal)
        assert (first in months) != (first in words("color"))
        assert int(wanted) == 2 * (first not in months) + (second in fruit)
    assert counts("abstract_clf") == dict.fromkeys("0123", 75)


def named(text: str, kind: str) -> list[str]:
    """Names of a kind in a text: every name, or a first name and a surname."""
    listed = words(kind, of="news_names")
    if kind == "person":
        firsts, lasts = (words(k, of="news_names") for k in ("first name", "surname"))
        listed = [f"{first} {last}" for first in firsts for last in lasts]
    return [name for name in listed if name in text]


@pytest.mark.parametrize("kind", ["person", "location", "organization"])
def test_sentences_name_one_entity_of_the_kind(kind):
    places, others = [], 0
    for given, wanted in items(f"conll2003_{kind}")[::3]:
        assert named(given, kind) == [wanted]
        assert given[0] == '"' or given[0].isupper()
        assert given[-1] == "." or given.endswith(f'" said {wanted}.')
        assert "{" not in given
        places.append(given.index(wanted) / len(given))
        rest = {"person", "location", "organization"} - {kind}
        others += any(named(given, other) for other in rest)
    assert min(places) < 0.2 and max(places) > 0.6
    assert others > 40  # of 100: the answer is not the only name


def test_names_do_not_contain_each_other():
    names = [name for name, _ in read_facts("news_names")]
    assert len(names) == len(set(names))
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_lettered_questions_hold_the_right_option_under_the_letter():
    rows = {question: options for question, *options in read_rows("commonsense_qa")}
    assert len(rows) == len(read_rows("commonsense_qa"))
    for given, wanted in items("commonsense_qa"):
        question, *lines = given.split("\n")
        assert question.endswith("?")
        options = dict(line.split(": ", 1) for line in lines)
        assert list(options) == list("abcde")
        right, *wrong = rows[question]
        assert options[wanted] == right
        assert sorted(options.values()) == sorted([right, *wrong])
        assert len(set(options.values())) == 5
    many = counts("commonsense_qa").values()
    assert len(many) == 5 and max(many) - min(many) <= 1


def test_topics_are_equally_frequent():
    topics = ("World", "Sports", "Business", "Science")
    assert counts("ag_news") == dict.fromkeys(topics, 33)


@pytest.mark.parametrize("name, pattern", PATTERNS.items())
def test_letters_follow_the_pattern_or_differ(name, pattern):
    for given, wanted in items(name):
        letters = given.split(" ")
        assert all(re.fullmatch("[A-Z]", letter) for letter in letters)
        roles = {
            letter: "abcde"[at] for at, letter in enumerate(dict.fromkeys(letters))
        }
        shape = "".join(roles[letter] for letter in letters)
        assert shape == (pattern if wanted == "Foo" else "abcde"[: len(pattern)])
    assert counts(name) == {"Foo": 250, "Bar": 250}


@pytest.mark.parametrize("name", ["wordseq1", "wordseq2"])
def test_words_of_four_ways_tell_the_label_only_together(name):
    binary, four = dict(items(name)), dict(items(f"{name}_4way"))
    assert counts(name) == {"Foo": 256, "Bar": 256}
    assert counts(f"{name}_4way") == dict.fromkeys(("Foo", "Bar", "Mur", "Res"), 256)
    assert binary.items() <= four.items()
    category = dict(read_facts("categories"))
    label = {}
    for given, wanted in four.items():
        kinds = tuple(category[word] for word in given.split(" "))
        assert label.setdefault(kinds, wanted) == wanted
    of = {wanted: kinds for kinds, wanted in label.items()}
    assert of["Mur"] == (of["Bar"][0], of["Foo"][1])
    assert of["Res"] == (of["Foo"][0], of["Bar"][1])
    assert len(set(of["Foo"] + of["Bar"])) == 4
    # Neither list begins with one label's items only.
    assert len(set(list(four.values())[:20])) == 4


def test_categories_are_disjoint():
    rows = read_facts("categories")
    assert len(rows) == len({word for word, _ in rows})


def test_the_command_lists_every_task_with_its_size(capfd, tmp_path):
    code, out, _ = jaxheads(capfd, "tasks")
    assert code == 0 and "70 tasks: 41 abstractive, 29 extractive" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "→" in line}
    assert set(rows) == set(task_names())
    assert rows["ag_news"][1:5] == ["abstractive", "132", "4", "built-in"]
    (tmp_path / "odd[b].json").write_text(
        '[{"input": "x\\ny", "output": "1"}, {"input": "x\\ny", "output": "2"}]'
    )
    code, out, _ = jaxheads(capfd, "tasks", tmp_path)
    assert code == 0 and re.search(r"odd\[b\] +unknown +1 +2 .*x / y → 1", out)
    assert jaxheads(capfd, "tasks", tmp_path / "none")[0] == 2
