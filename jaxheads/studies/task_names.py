"""Which tasks the studies use when none are named; light to import."""

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
