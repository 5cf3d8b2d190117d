"""Which tasks the studies use when none are named; light to import."""

from typing import Literal

from jaxheads.icl.tasks import stem

SCORING_TASKS = (
    "antonym",
    "country-capital",
    "english-french",
    "present-past",
    "singular-plural",
    "capitalize",
    "landmark-country",
    "choose_first_of_3",
)
EVALUATION_TASKS = (
    "synonym",
    "english-spanish",
    "park-country",
    "product-company",
    "person-sport",
    "national_parks",
    "sentiment",
    "capitalize_first_letter",
    "person-occupation",
    "animal_v_object_3",
    "choose_middle_of_3",
)
EXECUTION_TASKS = (
    "antonym",
    "capitalize",
    "country-capital",
    "english-french",
    "present-past",
    "singular-plural",
)

YIN_SCORING_FILES = (
    "product-company_train",
    "landmark-country_train",
    "sentiment_train",
    "antonym_train",
    "concept_v_object_5_train",
    "concept_v_object_3_train",
    "fruit_v_animal_5_train",
    "synonym_train",
    "lowercase_first_letter_train",
    "object_v_concept_5_train",
    "choose_middle_of_5_train",
    "conll2003_person_train",
    "color_v_animal_5_train",
    "choose_last_of_3_train",
    "adjective_v_verb_3_train",
    "verb_v_adjective_5",
    "animal_v_object_5_val",
    "conll2003_location_train",
    "adjective_v_verb_5_train",
    "color_v_animal_3_train",
    "choose_middle_of_3_train",
    "object_v_concept_3_train",
    "capitalize_train",
    "fruit_v_animal_3_train",
    "choose_last_of_5_train",
    "choose_first_of_3_train",
    "verb_v_adjective_3_train",
    "english-spanish_train",
    "english-french_train",
)
"""Files that the code of Yin & Steinhardt 2025 scores heads by, in its order."""

YIN_EVALUATION_FILES = (
    "ag_news_val",
    "capitalize_first_letter_val",
    "conll2003_organization_val",
    "national_parks_val",
    "park-country_val",
    "person-occupation_val",
    "animal_v_object_3_val",
    "choose_first_of_5_val",
    "english-german_val",
    "person-instrument_val",
    "commonsense_qa_val",
    "capital_index_val",
    "capitalize_second_letter_train",
    "abstract_clf_val",
    "french-english_val",
    "bind_fruit_val",
    "bind_capital_par_val",
    "bind_capital_val",
    "bind_shape_val",
)
"""Files that it evaluates few-shot accuracy on, in its order."""

YIN_EXECUTION_FILES = (
    "ag_news_val",
    "antonym_val",
    "capitalize_val",
    "capitalize_first_letter_val",
    "capitalize_second_letter_val",
    "commonsense_qa_val",
    "english-french_val",
    "english-german_val",
    "english-spanish_val",
    "landmark-country_val",
    "lowercase_first_letter_val",
    "national_parks_val",
    "park-country_val",
    "person-instrument_val",
    "person-occupation_val",
    "product-company_val",
    "sentiment_val",
    "synonym_val",
    "adjective_v_verb_3_val",
    "adjective_v_verb_5_val",
    "animal_v_object_3_val",
    "animal_v_object_5_val",
    "choose_first_of_3_val",
    "choose_first_of_5_val",
    "choose_last_of_3_val",
    "choose_last_of_5_val",
    "choose_middle_of_3_val",
    "choose_middle_of_5_val",
    "color_v_animal_3_val",
    "color_v_animal_5_val",
    "concept_v_object_3_val",
    "concept_v_object_5_val",
    "conll2003_location_val",
    "conll2003_organization_val",
    "conll2003_person_val",
    "fruit_v_animal_3_val",
    "fruit_v_animal_5_val",
    "object_v_concept_3_val",
    "object_v_concept_5_val",
    "verb_v_adjective_3_val",
    "verb_v_adjective_5",
)
"""Files whose tasks it carries out by function vectors, in its order."""


def without_splits(files: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks that files hold parts of, in order."""
    return tuple(map(stem, files))


TemplateName = Literal[
    "qa", "question_answer", "input_output", "arrow", "colon", "bar", "lines"
]
