"""What a source may be: names, files and folders, and what is said of a wrong one."""

from pathlib import Path

import pytest
from model_folder import write_folder

from jaxheads.errors import UserError
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.model import load


@pytest.fixture
def folder(tmp_path, tiny_gqa) -> Path:
    """A tiny model's folder."""
    return write_folder(tmp_path / "m", tiny_gqa.config, tiny_gqa.params)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("smollm2-135m-instrct", "did you mean 'smollm2-135m-instruct'"),
        ("nowhere/model.gguf", "no file of this name exists: check the spelling"),
        ("./nowhere", "built-in name .*smollm2-135m-instruct.* hub id owner/name"),
        ("~nobody-here/model", "none of these"),
        ("", "none of these"),
        ("https://huggingface.co/a/b-1.4b/tree/main", "did you mean 'a/b-1.4b'"),
        ("hf.co/", "check the spelling"),
        (__file__, r"is a \.py file"),
        ("GPT2-XL", "did you mean 'gpt2-xl'"),
        ("pythia-160m-dedupped", "did you mean 'pythia-160m-deduped'"),
    ],
)
def test_a_wrong_source_says_what_is_expected(source, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        load(source)
    assert "\n" not in str(error.value)


def test_a_revision_belongs_to_the_hub(folder):
    for source in [folder, folder / "config.json", None]:
        with pytest.raises(UserError, match="leave out the revision 'step1'"):
            load(source, revision="step1")


def test_dtypes_are_three(folder):
    with pytest.raises(UserError, match=r"float32, bfloat16, float16, but is 'int8'"):
        load(folder, dtype="int8")


def test_a_folder_goes_before_the_preset_of_its_name(tmp_path, tiny_gqa, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gpt2-xl").mkdir()  # such as the results of a study
    with pytest.raises(UserError, match=r"no config\.json.*give openai-community/gpt2"):
        load("gpt2-xl")
    with pytest.raises(UserError, match=r"leave out.*give openai-community/gpt2-xl"):
        load("gpt2-xl", revision="main")
    write_folder(Path("gpt2-xl"), tiny_gqa.config, tiny_gqa.params)
    assert params_sha256(load("gpt2-xl").params) == params_sha256(tiny_gqa.params)
