"""The built-in tasks: hand-written facts, and pairs made by a rule.

A task's pairs are the same in every process: the facts are files, and a generator
that draws at random is seeded by a digest of its own name.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from itertools import pairwise, permutations, product
from types import MappingProxyType

import numpy as np

Pairs = list[tuple[str, str]]

DRAWN_ITEMS = 300  # the facts set a task's size; a rule that draws needs a number


def read_rows(name: str) -> list[tuple[str, ...]]:
    """Read the rows of one facts file: columns between tabs; ``#`` is a comment."""
    source = resources.files("jaxheads.icl").joinpath("facts", f"{name}.tsv")
    lines = source.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def read_facts(name: str) -> Pairs:
    """Read the pairs of one facts file: input, tab, output; ``#`` is a comment."""
    return [(given, wanted) for given, wanted in read_rows(name)]


def words(*categories: str, of: str = "words") -> list[str]:
    """List the words of some categories, of all when none is named.

    Args:
        categories: Categories of the facts file.
        of: The facts file: word, tab, category.

    Returns:
        The words, in the file's order.
    """
    return [
        word
        for word, category in read_facts(of)
        if not categories or category in categories
    ]


def generator(name: str) -> np.random.Generator:
    """Make the random generator of one task."""
    digest = hashlib.sha256(f"jaxheads task {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROUND = ("days", "months")

_FACTS = (
    "ag_news",
    "antonym",
    "country-capital",
    "country-currency",
    "english-french",
    "english-german",
    "english-spanish",
    "landmark-country",
    "national_parks",
    "park-country",
    "person-instrument",
    "person-occupation",
    "person-sport",
    "present-past",
    "product-company",
    "sentiment",
    "singular-plural",
    "synonym",
)
_CONCEPT = ("adjective", "verb", "idea")
_CONTRASTS = {
    "adjective_v_verb": (("adjective",), ("verb",)),
    "animal_v_object": (("animal",), ("object",)),
    "color_v_animal": (("color",), ("animal",)),
    "concept_v_object": (_CONCEPT, ("object",)),
    "fruit_v_animal": (("fruit",), ("animal",)),
    "object_v_concept": (("object",), _CONCEPT),
    "verb_v_adjective": (("verb",), ("adjective",)),
}
_PICKS: dict[str, Callable[[list[str]], str]] = {
    "alphabetically_first": min,
    "alphabetically_last": max,
    "choose_first_of": lambda words: words[0],
    "choose_middle_of": lambda words: words[len(words) // 2],
    "choose_last_of": lambda words: words[-1],
}


def abstractive() -> Mapping[str, Callable[[], Pairs]]:
    """Name every built-in task whose answer is not a part of the query."""
    table: dict[str, Callable[[], Pairs]] = {
        name: partial(read_facts, name) for name in _FACTS
    }
    table |= {
        "abstract_clf": abstract_classes,
        "bind_capital": capitals,
        "bind_capital_par": partial(capitals, parallel=True),
        "capital_index": _capital_index,
        "capitalize": lambda: [(w, w.capitalize()) for w in words()],
        "capitalize_first_letter": lambda: [(w, w[0].upper()) for w in words()],
        "capitalize_last_letter": lambda: [(w, w[-1].upper()) for w in words()],
        "capitalize_second_letter": lambda: [(w, w[1].upper()) for w in words()],
        "commonsense_qa": lettered_questions,
        "french-english": lambda: [(b, a) for a, b in read_facts("english-french")],
        "lowercase_first_letter": lambda: [(w.upper(), w[0]) for w in words()],
        "lowercase_last_letter": lambda: [(w.upper(), w[-1]) for w in words()],
        "next_capital_letter": _next_capital_letter,
        "next_item": _neighbours,
        "prev_item": partial(_neighbours, backwards=True),
        "word_length": lambda: [(w, str(len(w))) for w in words()],
    }
    table |= {name: partial(letters, name) for name in PATTERNS}
    for name in SEQUENCES:
        table[name] = partial(word_sequences, name)
        table[f"{name}_4way"] = partial(word_sequences, name, ways=4)
    return MappingProxyType(table)


def extractive() -> Mapping[str, Callable[[], Pairs]]:
    """Name every built-in task whose answer is a part of the query."""
    table: dict[str, Callable[[], Pairs]] = {"bind_fruit": fruits, "bind_shape": shapes}
    for kind in ENTITIES:
        table[f"conll2003_{kind}"] = partial(named_entities, kind)
    for size in (3, 5):
        for stem in _CONTRASTS:
            name = f"{stem}_{size}"
            table[name] = partial(_odd_one_out, name, stem, size)
        for stem in _PICKS:
            name = f"{stem}_{size}"
            table[name] = partial(_pick, name, stem, size)
    return MappingProxyType(table)


def _pick(name: str, stem: str, size: int) -> Pairs:
    """Draw lists of distinct words; the answer is chosen by place or by alphabet."""
    rng, vocabulary, pairs = generator(name), words(), {}
    while len(pairs) < DRAWN_ITEMS:
        drawn = [vocabulary[i] for i in rng.choice(len(vocabulary), size, False)]
        pairs[", ".join(drawn)] = _PICKS[stem](drawn)
    return list(pairs.items())


def _odd_one_out(name: str, stem: str, size: int) -> Pairs:
    """Draw lists with one word of the wanted kind, at a uniformly random place."""
    rng, pairs = generator(name), {}
    wanted, others = (words(*categories) for categories in _CONTRASTS[stem])
    while len(pairs) < DRAWN_ITEMS:
        answer = wanted[rng.integers(len(wanted))]
        drawn = [others[i] for i in rng.choice(len(others), size - 1, False)]
        drawn.insert(int(rng.integers(size)), answer)
        pairs[", ".join(drawn)] = answer
    return list(pairs.items())


def _capital_index() -> Pairs:
    """Write one letter of each word as a capital; the answer counts from 1."""
    rng, pairs = generator("capital_index"), []
    for word in words():
        at = int(rng.integers(len(word)))
        pairs.append((word[:at] + word[at].upper() + word[at + 1 :], str(at + 1)))
    return pairs


def _next_capital_letter() -> Pairs:
    """Answer with the letter after the word's first one, as a capital; A follows Z."""
    following = dict(zip(_LETTERS, _LETTERS[1:] + "a", strict=True))
    return [(word, following[word[0]].upper()) for word in words()]


def _neighbours(backwards: bool = False) -> Pairs:
    """Pair each item of familiar sequences with the one after (or before) it.

    Roman numerals of one letter are no inputs: "I" as a letter is followed by "J".
    """
    sequences: dict[str, list[str]] = {}
    for item, sequence in read_facts("sequences"):
        sequences.setdefault(sequence, []).append(item)
    pairs = []
    for sequence, items in sequences.items():
        ring = [*items, items[0]] if sequence in _ROUND else items
        for step in pairwise(ring):
            given, wanted = reversed(step) if backwards else step
            if sequence != "Roman numerals" or len(given) > 1:
                pairs.append((given, wanted))
    return pairs


_NAMES = ("Alice", "Bob")
_COLORS = ("red", "blue")
# The class of the first word, the class of the second word, the answer.
_CLASSES = (
    ("months", "animal", "0"),
    ("months", "fruit", "1"),
    ("color", "animal", "2"),
    ("color", "fruit", "3"),
)


def fruits() -> Pairs:
    """Ask for one of two persons' fruit: ``Which fruit does Bob like?``."""
    pairs = []
    for (one, other), asked in _contexts("bind_fruit", words("fruit")):
        context = " ".join(
            f"{name} likes eating the {fruit}."
            for name, fruit in zip(_NAMES, (one, other), strict=True)
        )
        question = f"Which fruit does {_NAMES[asked]} like?"
        pairs.append((f"{context} {question}", (one, other)[asked]))
    return pairs


def shapes() -> Pairs:
    """Ask for the shape of one of two colours: ``Which shape is blue color?``."""
    pairs = []
    for bound, asked in _contexts("bind_shape", words("shape", of="categories")):
        context = " ".join(
            f"The {color} shape is {shape}."
            for color, shape in zip(_COLORS, bound, strict=True)
        )
        question = f"Which shape is {_COLORS[asked]} color?"
        pairs.append((f"{context} {question}", bound[asked]))
    return pairs


def capitals(parallel: bool = False) -> Pairs:
    """Ask for the city of a person whose country is told: two steps.

    Left out are countries that share a name with their capital, which could be copied,
    and names with "and", which joins the two countries of the parallel form; of two
    countries none is a part of the other's name.

    Args:
        parallel: Both countries in one sentence ("respectively"), not in two.

    Returns:
        The pairs.
    """
    capital = {
        country: city
        for country, city in read_facts("country-capital")
        if not (city in country or country in city or " and " in country)
    }
    name = "bind_capital_par" if parallel else "bind_capital"
    pairs = []
    for bound, asked in _contexts(name, list(capital)):
        if parallel:
            context = (
                f"{_NAMES[0]} and {_NAMES[1]} live in the capital cities of "
                f"{bound[0]} and {bound[1]} respectively."
            )
        else:
            context = " ".join(
                f"{person} lives in the capital city of {country}."
                for person, country in zip(_NAMES, bound, strict=True)
            )
        question = f"Which city does {_NAMES[asked]} live in?"
        pairs.append((f"{context} {question}", capital[bound[asked]]))
    return pairs


def abstract_classes() -> Pairs:
    """Name the class of two words, which is in the pair and in neither word.

    Month and animal: 0; month and fruit: 1; colour and animal: 2; colour and fruit: 3;
    as many of each.
    """
    rng, listed = generator("abstract_clf"), {"months": _months()}
    listed |= {kind: words(kind) for kind in ("animal", "color", "fruit")}
    pairs: dict[str, str] = {}
    for index in range(DRAWN_ITEMS):
        first, second, answer = _CLASSES[index % len(_CLASSES)]
        given = ""
        while not given or given in pairs:
            drawn = (listed[kind] for kind in (first, second))
            given = " ".join(each[rng.integers(len(each))] for each in drawn)
        pairs[given] = answer
    return list(pairs.items())


def _months() -> list[str]:
    return words("months", of="sequences")


def _contexts(name: str, values: Sequence[str]) -> list[tuple[tuple[str, str], int]]:
    """Draw different ordered pairs of values; each place is asked for equally often."""
    rng = generator(name)
    every = [
        (one, other)
        for one, other in permutations(values, 2)
        if one not in other and other not in one
    ]
    drawn = rng.choice(len(every), DRAWN_ITEMS, replace=False)
    asked = rng.permutation(np.arange(DRAWN_ITEMS) % 2)
    return [(every[at], int(place)) for at, place in zip(drawn, asked, strict=True)]


PATTERNS: Mapping[str, str] = MappingProxyType(
    {"repetition": "xyxy", "recursion": "xyyy", "centre_embedding": "xyzyx"}
)
"""The patterns: equal letters here are equal letters there."""

SEQUENCES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = MappingProxyType(
    {
        "wordseq1": (("fruit", "animal"), ("furniture", "profession")),
        "wordseq2": (("vegetable", "vehicle"), ("body part", "instrument")),
    }
)
"""The categories of the two words: those of Foo, then those of Bar."""

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EACH = 250


def letters(name: str) -> Pairs:
    """Draw letters that follow a pattern, Foo, and as many that do not, Bar.

    A pattern's letters are drawn without replacement, and so are all letters of a
    negative. That is how the negatives of the published data are: no letter of them
    comes twice, so that any repeated letter tells the label, whatever its place.

    Args:
        name: One of ``PATTERNS``.

    Returns:
        500 pairs, a Foo and a Bar in turn.
    """
    rng, pattern = generator(name), PATTERNS[name]
    pairs: dict[str, str] = {}
    while len(pairs) < 2 * _EACH:
        follows = len(pairs) % 2 == 0
        drawn = rng.permutation(list(_ALPHABET))
        if follows:
            places = {role: at for at, role in enumerate(dict.fromkeys(pattern))}
            shown = [str(drawn[places[role]]) for role in pattern]
        else:
            shown = [str(letter) for letter in drawn[: len(pattern)]]
        pairs.setdefault(" ".join(shown), "Foo" if follows else "Bar")
    return list(pairs.items())


def word_sequences(name: str, ways: int = 2) -> Pairs:
    """List all pairs of two categories' words; the label is that of the categories.

    Binary: Foo and Bar have no category in common. Four ways: Mur has the first
    category of Bar and the second of Foo, Res the other way round, so that neither word
    alone tells the label.

    Args:
        name: One of ``SEQUENCES``.
        ways: Number of labels, 2 or 4.

    Returns:
        256 pairs a label, in a random order.
    """
    (one, two), (three, four) = SEQUENCES[name]
    labels = {(one, two): "Foo", (three, four): "Bar"}
    if ways == 4:
        labels |= {(three, two): "Mur", (one, four): "Res"}
    pairs = [
        (f"{first} {second}", label)
        for (left, right), label in labels.items()
        for first, second in product(
            words(left, of="categories"), words(right, of="categories")
        )
    ]
    order = generator(f"{name} {ways}").permutation(len(pairs))
    return [pairs[index] for index in order]


ENTITIES = ("location", "organization", "person")
_OPTIONS = "abcde"


def named_entities(kind: str) -> Pairs:
    """Fill news sentences with names; the answer is the one of the kind.

    The same sentences serve all kinds, most of them hold names of other kinds too, and
    none holds two of a kind. So the answer is not simply the capitalized words.

    Args:
        kind: One of ``ENTITIES``.

    Returns:
        The pairs.
    """
    rng = generator(f"conll2003_{kind}")
    sentences = [row[0] for row in read_rows("news_sentences")]
    sentences = [sentence for sentence in sentences if f"{{{kind}}}" in sentence]
    listed = {
        each: words(each, of="news_names")
        for each in ("first name", "surname", "location", "organization")
    }
    pairs: dict[str, str] = {}
    while len(pairs) < DRAWN_ITEMS:
        drawn = {
            each: names[rng.integers(len(names))] for each, names in listed.items()
        }
        filling = {
            "person": f"{drawn['first name']} {drawn['surname']}",
            "location": drawn["location"],
            "organization": drawn["organization"],
        }
        sentence = sentences[rng.integers(len(sentences))]
        pairs[sentence.format(**filling)] = filling[kind]
    return list(pairs.items())


def lettered_questions() -> Pairs:
    """Put the options of each question under letters; the answer is the right letter.

    Every letter is the right one equally often, up to one.
    """
    rng, rows = generator("commonsense_qa"), read_rows("commonsense_qa")
    places = rng.permutation(np.arange(len(rows)) % len(_OPTIONS))
    pairs = []
    for (question, right, *wrong), place in zip(rows, places, strict=True):
        options = [str(option) for option in rng.permutation(wrong)]
        options.insert(int(place), right)
        lines = [f"{a}: {option}" for a, option in zip(_OPTIONS, options, strict=True)]
        pairs.append(("\n".join([question, *lines]), _OPTIONS[place]))
    return pairs
