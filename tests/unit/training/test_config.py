import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import ConfigError
from srgnn.sequence import SessionRules
from training.config import CHECKS, SECTIONS, Recipe, load_recipe, recipe_names

NUMBERS = [
    f"{section}.{entry.name}"
    for section, kind in SECTIONS.items()
    for entry in fields(kind)
    if type(entry.default) in (int, float)
]
TEXTS_AND_SWITCHES = [
    f"{section}.{entry.name}"
    for section, kind in SECTIONS.items()
    for entry in fields(kind)
    if type(entry.default) in (str, bool)
]


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_promised_recipe_is_shipped():
    promised = {
        "demo",
        "diginetica",
        "diginetica-paper",
        "yoochoose-64",
        "yoochoose-64-paper",
        "serenade",
        "globo",
        "default",
    }
    assert promised <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


@pytest.mark.parametrize("name", ["diginetica-paper", "yoochoose-64-paper"])
def test_paper_recipes_are_the_published_settings(name):
    recipe = load_recipe(name)
    model, training = recipe.model, recipe.training
    assert (model.scoring, model.hybrid, model.steps, model.dropout, model.hidden_size) == (
        "dot",
        True,
        1,
        0.0,
        100,
    )
    assert not model.reversed_positions
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-3, 1e-5)
    assert (training.schedule, training.step_epochs, training.step_factor) == ("step", 3, 0.1)
    assert (training.batch_size, training.epochs, training.patience, training.warmup_share) == (
        100,
        10,
        3,
        0.0,
    )
    assert training.precision == "float32"
    assert recipe.data.protocol == "srgnn"


def test_a_file_is_a_recipe_named_after_it(tmp_path):
    recipe = load_recipe(write(tmp_path, "[rules]\nmax_length = 7\n"))
    assert recipe == Recipe("mine", rules=SessionRules(max_length=7))


def test_a_misspelt_setting_is_named_with_its_place_and_the_right_spelling(tmp_path):
    path = write(tmp_path, "[training]\nepoch = 3\n")
    with pytest.raises(
        ConfigError, match=r"unknown setting 'epoch' in \[training\] of .*mine\.toml; did you mean 'epochs'\?"
    ):
        load_recipe(path)


def test_a_misspelt_section_suggests_the_right_one(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown section \[trainin\] .*did you mean 'training'\?"):
        load_recipe(write(tmp_path, "[trainin]\nepochs = 3\n"))


def test_a_misspelt_recipe_suggests_the_right_one():
    with pytest.raises(ConfigError, match=r"no recipe 'diginetika'; did you mean 'diginetica.*expected one of default"):
        load_recipe("diginetika")


def test_a_misspelt_choice_suggests_the_right_one():
    with pytest.raises(ConfigError, match=r"data\.source = 'yoochose'.*did you mean 'yoochoose'"):
        load_recipe("default", ["data.source=yoochose"])


@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_may_be_negative(key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        load_recipe("default", [f"{key}=-1"])


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_neither_a_text_nor_a_switch(key):
    for value in ("many", "true", "[1]"):
        with pytest.raises(ConfigError, match=f"{key} = .*expected a"):
            load_recipe("default", [f"{key}={value}"])


@pytest.mark.parametrize("key", TEXTS_AND_SWITCHES)
def test_a_text_or_switch_is_not_a_number(key):
    with pytest.raises(ConfigError, match=f"{key} = 3 .*expected"):
        load_recipe("default", [f"{key}=3"])


@pytest.mark.parametrize("value", ["nan", "inf", "0", "0.0"])
def test_a_learning_rate_is_positive_and_finite(value):
    with pytest.raises(ConfigError, match=r"training\.learning_rate"):
        load_recipe("default", [f"training.learning_rate={value}"])


@pytest.mark.parametrize("key", [key for key in NUMBERS if key.endswith("_share")])
def test_a_share_is_below_one(key):
    with pytest.raises(ConfigError, match=f"{key} = 1.0 .*expected a share"):
        load_recipe("default", [f"{key}=1"])


def test_a_whole_number_is_not_rounded():
    with pytest.raises(ConfigError, match=r"training\.epochs = 3\.5 .*a whole number"):
        load_recipe("default", ["training.epochs=3.5"])


def test_checks_name_settings_that_exist():
    known = {f"{section}.{entry.name}" for section, kind in SECTIONS.items() for entry in fields(kind)}
    assert set(CHECKS) <= known


def test_an_override_is_toml_or_else_plain_text():
    recipe = load_recipe(
        "default",
        [
            "training.epochs=3",
            "data.source=yoochoose",
            'columns.item="sku"',
            "columns.session=visit",
            "columns.delimiter=;",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.data.source == "yoochoose"
    assert (recipe.columns.item, recipe.columns.session, recipe.columns.delimiter) == ("sku", "visit", ";")


def test_the_last_override_wins():
    assert load_recipe("default", ["training.epochs=3", "training.epochs=4"]).training.epochs == 4


def test_a_whole_number_serves_as_a_number():
    days = load_recipe("default", ["data.test_days=7"]).data.test_days
    assert (days, type(days)) == (7.0, float)


@pytest.mark.parametrize("override", ["training.epochs", "epochs=3", "=3", ".=3", "training.=3", "training=3"])
def test_an_override_without_section_key_and_value_shows_the_form(override):
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        load_recipe("default", [override])


def test_an_override_cannot_smuggle_in_another_setting():
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        load_recipe("default", ["training.epochs=3\nseed = 4"])


def test_broken_toml_is_reported_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML: .*line 1"):
        load_recipe(write(tmp_path, "[training\n"))


def test_a_recipe_that_is_not_text_is_reported(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(str(path))


def test_a_setting_outside_a_section_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown section \[epochs\]"):
        load_recipe(write(tmp_path, "epochs = 3\n"))
    with pytest.raises(ConfigError, match=r"'training' .* is 3; expected a section"):
        load_recipe(write(tmp_path, "training = 3\n"))


def test_a_recipe_cannot_rename_itself(tmp_path):
    with pytest.raises(ConfigError, match="named after its file"):
        load_recipe(write(tmp_path, 'name = "other"\n'))


@given(st.text(max_size=30))
def test_any_override_gives_a_recipe_or_a_config_error(text):
    with suppress(ConfigError):
        assert load_recipe("default", [text]).name == "default"


def test_a_tab_survives_the_shell_with_and_without_its_quotes() -> None:
    for written in (r'columns.delimiter="\t"', r"columns.delimiter=\t", "columns.delimiter=\t"):
        assert load_recipe("default", [written]).columns.delimiter == "\t"
