import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from srgnn.errors import ConfigError
from training.config import load_recipe, recipe_names
from training.space import REFUSED, load_space, rounded, values_of, with_values


@pytest.fixture
def space_of(tmp_path):
    def write(text):
        path = tmp_path / "space.toml"
        path.write_text(text, encoding="utf-8")
        return load_space(path)

    return write


@pytest.mark.parametrize("name", recipe_names())
def test_the_shipped_space_holds_every_shipped_recipe(name):
    recipe, space = load_recipe(name), load_space()
    own = values_of(recipe, space)
    assert own["training.learning_rate"] == recipe.training.learning_rate
    assert with_values(recipe, own) == recipe


def test_lists_and_ranges_become_what_the_recipe_holds(space_of):
    space = space_of(
        """
        [rules]
        max_length = {low = 5, high = 25, step = 10}
        [model]
        hybrid = [true, false]
        scale = [8, 16.5]
        dropout = {low = 0, high = 0.5, step = 0.1}
        [training]
        batch_size = {low = 64, high = 1024, log = true}
        learning_rate = {low = 1e-3, high = 1e-2, log = true}
        optimizer = ["adam", "adamw"]
        """
    )
    assert space == {
        "rules.max_length": IntDistribution(5, 25, step=10),
        "model.hybrid": CategoricalDistribution([True, False]),
        "model.scale": CategoricalDistribution([8.0, 16.5]),
        "model.dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "training.batch_size": IntDistribution(64, 1024, log=True),
        "training.learning_rate": FloatDistribution(1e-3, 1e-2, log=True),
        "training.optimizer": CategoricalDistribution(["adam", "adamw"]),
    }
    assert all(type(value) is float for value in space["model.scale"].choices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model", "cannot be read as TOML"),
        ("", "names no setting"),
        ("[model]", "names no setting"),
        ("[data]\ntest_share = [0.1, 0.2]", r"'data' in .*expected only sections \[rules\], \[model\], \[training\]"),
        ("[modle]\ndropout = [0.1, 0.2]", "'modle' in .*expected only sections"),
        ("learning_rate = {low = 1e-3, high = 1e-2}", "'learning_rate' in .*expected only sections"),
        ("model = 5", "'model' in .*with settings under them"),
        ("name = [1, 2]", "'name' in"),
        ("[model]\ndropuot = [0.1, 0.2]", "unknown setting 'dropuot' in .model. of .*did you mean 'dropout'"),
        ("[model]\ndropuot = {low = 0.1, high = 0.2}", "did you mean 'dropout'"),
        ("[model]\ndropuot = 0.1", "did you mean 'dropout'"),
        ("[model]\ndropout = 0.1", "model.dropout = 0.1 in .*expected a list of values or {low = ..., high = ...}"),
        ("[model]\ndropout = [0.1]", "two values or more, each once"),
        ("[model]\ndropout = []", "two values or more, each once"),
        ("[model]\nscale = [8, 8.0]", "two values or more, each once"),
        ("[model]\ndropout = [0.1, 1.0]", "model.dropout is 1.0: expected 0 to below 1"),
        ("[model]\ndropout = {low = 0.1, high = 1.0}", "model.dropout is 1.0: expected 0 to below 1"),
        ("[model]\ndropout = {low = 0.1}", "expected {low = ..., high = ...}"),
        ("[model]\ndropout = {low = 0.1, hihg = 0.2}", "expected {low = ..., high = ...}"),
        ("[model]\ndropout = {low = 0.1, high = 0.2, log = 1}", "log = true where you like"),
        ("[model]\ndropout = {low = 0.1, high = 0.2, step = 0}", "step is 0, expected a number above 0"),
        ("[model]\ndropout = {low = 0.1, high = 0.2, step = true}", "step is True, expected a number"),
        ("[model]\ndropout = {low = 0.1, high = 0.2, step = inf}", "step is inf, expected a number above 0"),
        ("[model]\ndropout = {low = 0.1, high = 0.2, step = nan}", "step is nan, expected a number"),
        ("[model]\ndropout = {low = 0.0, high = 0.5, step = 0.2}", "not divisible by"),
        ("[training]\nlearning_rate = {low = 1.0, high = 1e300, step = 1e-300}", "a step that divides the range"),
        ("[model]\ndropout = {low = 0.0, high = 0.5, log = true}", "low > 0. must hold"),
        ("[model]\ndropout = {low = 0.1, high = 0.5, log = true, step = 0.1}", "step"),
        ("[model]\ndropout = {low = 0.2, high = 0.1}", "expected low below high"),
        ("[model]\ndropout = {low = 0.2, high = 0.2}", "expected low below high"),
        ("[model]\nhybrid = {low = false, high = true}", "a range is for numbers"),
        ("[training]\noptimizer = {low = 'adam', high = 'adamw'}", "a range is for numbers"),
        ("[training]\noptimizer = ['adam', 'sgd']", "training.optimizer = 'sgd' in .*expected one of 'adam', 'adamw'"),
        ("[training]\nbatch_size = [64, 0]", "training.batch_size = 0 in .*expected 1 or more"),
        ("[training]\nbatch_size = [64, 1.5]", "training.batch_size = 1.5 in .*expected a whole number"),
        (
            "[training]\nbatch_size = {low = 64, high = 512, step = 1.5}",
            "step is 1.5, expected a number above 0 of the",
        ),
        ("[training]\nbatch_size = {low = 64, high = 512, step = 100}", "not divisible by"),
        (
            "[training]\nbatch_size = {low = 64.0, high = 512}",
            "training.batch_size = 64.0 in .*expected a whole number",
        ),
    ],
)
def test_a_mistake_names_file_setting_and_what_was_expected(space_of, text, message):
    with pytest.raises(ConfigError, match=message) as raised:
        space_of(text)
    assert "space.toml" in str(raised.value)


@pytest.mark.parametrize("key", REFUSED)
def test_what_validation_cannot_judge_is_not_searched(space_of, key):
    section, _, setting = key.partition(".")
    with pytest.raises(ConfigError, match=f"{key} in .*cannot be searched"):
        space_of(f"[{section}]\n{setting} = [1, 2]")


def test_a_folder_and_text_that_is_not_utf8_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_space(tmp_path)
    (tmp_path / "space.toml").write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_space(tmp_path / "space.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[model]\ndropout = [0.3, 0.4]", "one of 0.3, 0.4"),
        ("[model]\ndropout = {low = 0.3, high = 0.4}", "0.3 to 0.4"),
        ("[model]\ndropout = {low = 0.0, high = 0.4, step = 0.2}", "0.0 to 0.4 in steps of 0.2"),
    ],
)
def test_the_recipes_own_value_must_be_in_the_space(space_of, text, expected):
    with pytest.raises(ConfigError, match=rf"model.dropout = 0.1 of recipe demo .*expected {expected}\. .*--set"):
        values_of(load_recipe("demo"), space_of(text))


def test_other_values_take_the_place_of_the_recipes():
    recipe = load_recipe("demo")
    changed = with_values(recipe, {"model.dropout": 0.3, "training.batch_size": 64})
    assert (changed.model.dropout, changed.training.batch_size, changed.model.scale) == (0.3, 64, 12.0)
    assert with_values(changed, {"model.dropout": 0.1, "training.batch_size": 512}) == recipe


def test_digits_that_mean_nothing_are_cut_within_the_range():
    assert rounded(0.1 + 0.2, FloatDistribution(0.0, 0.5, step=0.1)) == 0.3
    assert rounded(0.00123456789, FloatDistribution(1e-3, 1e-2)) == 0.00123457
    assert rounded(0.9999999, FloatDistribution(0.5, 0.9999999)) == 0.9999999
    assert rounded(7, IntDistribution(1, 9)) == 7
    assert rounded("adam", CategoricalDistribution(["adam", "adamw"])) == "adam"
