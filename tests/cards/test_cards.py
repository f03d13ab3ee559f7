"""Model cards: every mistake is told with file, key, value and what is allowed, and nothing is imported meanwhile."""

import re
import sys
from pathlib import Path

import helpers
import pytest

from robustness import cards
from robustness.cards import Card, card
from robustness.errors import CardError
from robustness.perturbations import Clean, GaussianNoise, UniformNoise
from robustness.perturbations.strength import StrengthDistribution

CLAIMS = helpers.CARD + "\n[claims.normal]\n"
METRICS = "accuracy, balanced_accuracy, precision"
FACTORY, CALLABLE, KIND = 'factory = "{module}:factory"', 'callable = "{module}:recipe"', 'kind = "gaussian"'
TINY = helpers.CARD.replace("{{", "{").replace("}}", "}")


def replaced(old, new):
    """The tiny card with one text in place of another."""
    assert TINY.count(old) == 1
    text = TINY.replace(old, new).replace("{", "{{").replace("}", "}}")
    return text.replace("{{module}}", "{module}")


def after(line, more):
    return replaced(line, f"{line}\n{more}")


def load(folder, card=helpers.CARD, source=helpers.MODULE):
    return cards.load(helpers.project(folder, source, card))


def test_the_tiny_card(tmp_path):
    card = load(
        tmp_path,
        CLAIMS
        + 'accuracy = [0.9, 0.4]\n"recall[3]" = ["no claim possible", 0.2]\n[claims.clean]\nf1 = 0.95\nloss = 3.0',
    )
    assert card.name == "tiny"
    assert card.project == tmp_path
    assert card.weights is None
    assert card.perturbation("normal") == GaussianNoise()
    assert card.perturbation("clean") == Clean()
    assert card.file.strengths_of("normal") == (0.2, 0.8)
    assert card.file.strengths_of("clean") == (0,)
    assert [(claim.id, claim.threshold, claim.family) for claim in card.claims()] == [
        ("tiny:normal:0.2:accuracy", 0.9, "noise"),
        ("tiny:normal:0.8:accuracy", 0.4, "noise"),
        ("tiny:normal:0.8:recall[3]", 0.2, "noise"),
        ("tiny:clean:0:f1", 0.95, "clean"),
        ("tiny:clean:0:loss", 3.0, "clean"),
    ]


def test_sweeps_of_every_form(tmp_path):
    table = """
[sweeps."uniform noise"]
kind = "uniform"
strengths = [0, 0.5, { uniform = [0.0, 0.3], clean_fraction = 0.5 }]
[sweeps.bounded]
kind = "gaussian"
bound = 2
unit = "snr"
strengths = [50, -3.5]
[claims."uniform noise"]
strengths = [{ uniform = [0.0, 0.3], clean_fraction = 0.5 }]
accuracy = 0.3
"""
    card = load(tmp_path, helpers.CARD + table.replace("{", "{{").replace("}", "}}"))
    assert card.perturbation("uniform noise") == UniformNoise()
    assert card.file.strengths_of("uniform noise") == (
        0,
        0.5,
        StrengthDistribution(uniform=(0, 0.3), clean_fraction=0.5),
    )
    assert card.perturbation("bounded") == GaussianNoise(bound=2)
    assert card.file.sweeps["bounded"].unit == "snr"
    assert [claim.id for claim in card.claims()] == ["tiny:uniform noise:U(0,0.3)+0.5clean:accuracy"]


WRONG = {
    "unknown key": (
        f"nmae = 'x'\n{helpers.CARD}",
        "nmae = 'x': unknown key; allowed: name, description, .* did you mean 'name'",
    ),
    "unknown model key": (
        after(FACTORY, 'wieghts = "x"'),
        r"model\.wieghts = 'x': unknown key; allowed: factory, arguments, weights, .*; did you mean 'weights'",
    ),
    "unknown recipe key": (
        after(CALLABLE, "sead = 3"),
        r"recipe\.sead = 3: unknown key; allowed: .*did you mean 'seed'",
    ),
    "unknown data key": (
        after('name = "digits"', 'fiel = "x"'),
        r"data\.fiel = 'x': unknown key; allowed: .*did you mean 'file'",
    ),
    "unknown sweep key": (
        after(KIND, "buond = 1.0"),
        r"sweeps\.normal: unknown key 'buond'; allowed: kind, clip, .*, bound, strengths, unit, early_stop; "
        "did you mean 'bound'",
    ),
    "unknown split key": (
        replaced("per_class = 3", "per_clas = 3"),
        r"data\.split\.per_clas = 3: unknown key; allowed: .*per_class.*did you mean 'per_class'",
    ),
    "missing name": (replaced('name = "tiny"', ""), "name: missing; add it"),
    "missing factory": (replaced(FACTORY, ""), r"model\.factory: missing"),
    "missing strengths": (replaced("strengths = [0.2, 0.8]", ""), r"sweeps\.normal\.strengths: missing"),
    "neither weights nor recipe": (
        replaced('[recipe]\ncallable = "{module}:recipe"', "").replace("{module}:factory", "timm:vgg11"),
        r"the card needs model\.weights or a \[recipe\]; got neither",
    ),
    "unknown data": (
        replaced('"digits"', '"digit"'),
        r"data\.name = 'digit': `name` must be one of digits, mnist, array, .* got 'digit'; did you mean 'digits'",
    ),
    "unknown split": (replaced('"balanced"', '"balancd"'), r"data\.split\.kind = 'balancd'.*did you mean 'balanced'"),
    "unknown spread key": (
        replaced("[0.2, 0.8]", "[{ unifrom = [0.1, 0.5] }]"),
        r"strengths\.0\.unifrom.*allowed: uniform, clean_fraction; did you mean 'uniform'",
    ),
    "unknown kind": (
        replaced('"gaussian"', '"gausian"'),
        r"sweeps\.normal: `kind` must be one of gaussian, uniform, .*, got 'gausian'; did you mean 'gaussian'",
    ),
    "no kind": (
        replaced('kind = "gaussian"\n', ""),
        r"sweeps\.normal: `kind` must be one of gaussian, uniform, .*, got None",
    ),
    "clean is no sweep": (
        replaced("[sweeps.normal]", "[sweeps.clean]"),
        r"sweeps\.clean: every card has the clean pass",
    ),
    "clean is no kind": (replaced(KIND, 'kind = "clean"'), "`kind` must be one of gaussian, uniform, .*, got 'clean'"),
    "bound": (after(KIND, "bound = -1"), r"sweeps\.normal\.bound = -1: .*greater than 0"),
    "strength out of range": (
        replaced("[0.2, 0.8]", "[0.2, 1.8]"),
        r"sweeps\.normal: `strengths` of gaussian must lie in \[0, 1\], got 1\.8; V is a fraction",
    ),
    "strengths repeated": (
        replaced("[0.2, 0.8]", "[0.2, 0.8, 0.2]"),
        r"sweeps\.normal: `strengths` must differ from each other, got 0\.2 more than once",
    ),
    "no strengths": (replaced("[0.2, 0.8]", "[]"), "must name at least one strength, got none"),
    "strengths no list": (replaced("[0.2, 0.8]", "0.2"), r"sweeps\.normal\.strengths = 0\.2"),
    "spread": (
        replaced("[0.2, 0.8]", "[{ uniform = [0.5, 0.1] }]"),
        r"`uniform` must be \[low, high\] with low < high, got \[0\.5, 0\.1\]",
    ),
    "unit": (after(KIND, 'unit = "dB"'), r"sweeps\.normal\.unit = 'dB': .*'snr', 'snr-std' or 'image-std'"),
    "decision": (after(FACTORY, 'decision = { kind = "argmx" }'), r"model\.decision\.kind = 'argmx'"),
    "seed": (after(CALLABLE, "seed = -1"), r"recipe\.seed = -1"),
    "threads": (after(CALLABLE, "threads = 0"), r"recipe\.threads = 0"),
    "start": (after(CALLABLE, 'start = "never"'), r"recipe\.start = 'never': .*'automatic' or 'manual'"),
    "misspelt metric": (
        CLAIMS + "acuracy = [0.5, 0.4]",
        f"must be one of {METRICS}.*got 'acuracy'; did you mean 'accuracy'",
    ),
    "no metric": (CLAIMS, r"claims\.normal: has no metric; name one, or remove the table"),
    "metric that says nothing": (CLAIMS + "snr = [0.5, 0.4]", "`snr` cannot be claimed"),
    "wrong length": (
        CLAIMS + "accuracy = [0.5]",
        r"claims\.normal\.accuracy: must have one threshold per strength \(2\), got 1",
    ),
    "threshold 0": (
        CLAIMS + "accuracy = [0.0, 0.4]",
        r"`accuracy` must lie in \(0, 1\], got 0: a claim that always or never holds",
    ),
    "threshold above 1": (CLAIMS + "f1 = [0.5, 1.01]", r"`f1` must lie in \(0, 1\], got 1\.01"),
    "threshold nan": (CLAIMS + "accuracy = [nan, 0.4]", r"`accuracy` must lie in \(0, 1\], got nan"),
    "threshold in words": (
        CLAIMS + 'accuracy = ["none", 0.4]',
        r"claims\.normal.*accuracy.*'none'.*'no claim possible'",
    ),
    "unknown sweep": (
        helpers.CARD + "\n[claims.nromal]\naccuracy = [0.5, 0.4]",
        r"claims\.nromal: no such sweep; allowed: clean, normal; did you mean 'normal'",
    ),
    "strength not swept": (
        CLAIMS + "strengths = [0.3]\naccuracy = 0.4",
        r"claims\.normal\.strengths: 0\.3 not swept; allowed: 0\.2, 0\.8",
    ),
    "recall of one class alone": (
        CLAIMS + '"recall[1]" = [0.5, 0.4]',
        "recall of single classes alone is met by a constant classifier",
    ),
    "claims no table": (helpers.CARD + "\n[claims]\nnormal = 3", r"claims\.normal = 3"),
    "module missing": (
        replaced('"{module}:factory"', '"no_such:factory"'),
        r"model\.factory = 'no_such:factory': there is no module 'no_such' below .*write 'module:callable'",
    ),
    "package missing": (replaced('"{module}:factory"', '"no.such:factory"'), r"there is no module 'no\.such'"),
    "recipe missing": (
        replaced('"{module}:recipe"', '"no_such:recipe"'),
        r"recipe\.callable = 'no_such:recipe': there is no module",
    ),
    "factory not in its module": (
        replaced('"{module}:factory"', '"{module}:typo"'),
        r"model\.factory = 'tiny_\w+:typo': .*tiny_\w+\.py defines no 'typo' at its top level",
    ),
    "recipe not in its module": (
        replaced('"{module}:recipe"', '"{module}:typo"'),
        r"recipe\.callable = 'tiny_\w+:typo': .*tiny_\w+\.py defines no 'typo' at its top level",
    ),
    "form of a callable": (
        replaced('"{module}:factory"', '"models.factory"'),
        r"model\.factory = 'models\.factory': must be 'module:callable'",
    ),
    "no TOML": ("name = ", "not a readable TOML file: Invalid value"),
    "empty": ("", r"3 problem.*\n  name: missing; add it\n  model: missing; add it\n  data: missing; add it"),
}


@pytest.mark.parametrize(("card", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_with_file_key_value_and_what_is_allowed(tmp_path, card, message):
    """Catches: a key that is passed over, a mistake told without its place or with another repair."""
    path = helpers.project(tmp_path, card=card)
    with pytest.raises(CardError) as caught:
        cards.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["a:b", "a[b", "a]b", "", " a", "a\\nb", "a\\u0000", "../x", "a\\\\b", "x" * 101])
@pytest.mark.parametrize("where", ["name", "sweep"])
def test_names_that_ids_and_files_could_not_hold(tmp_path, name, where):
    card = replaced('"tiny"', f'"{name}"') if where == "name" else replaced("[sweeps.normal]", f'[sweeps."{name}"]')
    due = "consist of letters" if where == "name" else r"be printable text without any of : \[ \] /"
    with pytest.raises(CardError, match=rf"must ({due}|have at most 100 characters, got 101)"):
        load(tmp_path, card)


@pytest.mark.parametrize("name", [".", "..", ".hidden", "-rf", "a b", "größe", "nul", "COM1.x", "end.", "/tmp/x"])
def test_names_of_models_are_those_of_files(tmp_path, name):
    """Catches: a baseline, or a picture, written where a name leads, and one that another system cannot hold."""
    with pytest.raises(CardError, match=r"name = .*: must (consist of letters|be a valid file name)"):
        load(tmp_path, replaced('"tiny"', f'"{name}"'))


@pytest.mark.parametrize("name", ["digits-mlp", "v1.2_final", "0", "a" * 100])
def test_usual_names_are_taken(tmp_path, name):
    assert load(tmp_path, replaced('"tiny"', f'"{name}"')).name == name


def test_every_mistake_is_told_at_once(tmp_path):
    with pytest.raises(CardError) as caught:
        load(tmp_path, replaced('"tiny"', '""').replace('"digits"', '"digit"'))
    first, *problems = str(caught.value).splitlines()
    assert first.endswith("2 problem(s) in this card")
    assert [problem.split(" = ")[0].strip() for problem in problems] == ["name", "data.name"]


def test_a_module_that_is_not_python(tmp_path):
    with pytest.raises(CardError, match=r"model\.factory = .*\.py cannot be read: .*"):
        load(tmp_path, source="def factory(:")


@pytest.mark.parametrize("content", [b"name = '\xff'", None])
def test_a_file_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "card.toml"
    if content:
        path.write_bytes(content)
    with pytest.raises(CardError, match="not a readable TOML file"):
        cards.load(path)


def test_nothing_is_imported_while_a_card_is_checked(tmp_path):
    """Neither the factory's module, nor its packages, nor torch."""
    explodes = "raise SystemExit('was imported')\n"
    path = helpers.project(
        tmp_path, explodes + helpers.MODULE, helpers.CARD.replace("{module}:factory", "pack.nets:factory"),
        **{"pack.__init__": explodes, "pack.nets": explodes + helpers.MODULE},
    )  # fmt: skip
    before = set(sys.modules)
    assert cards.load(path).file.model.factory == "pack.nets:factory"
    assert set(sys.modules) == before
    code = """
import sys
from pathlib import Path
from robustness import cards
list(cards.load(Path(sys.argv[1])).claims())
print([name for name in ("torch", "sklearn", "scipy", "torchvision") if name in sys.modules])
"""
    assert helpers.run(code, path) == "[]\n"


@pytest.mark.parametrize("marker", card.PROJECT_FILES)
def test_the_project_is_the_nearest_folder_that_looks_like_one(tmp_path, marker):
    inner = tmp_path / "outer" / "inner"
    path = helpers.project(inner)
    (tmp_path / "outer" / "pyproject.toml").touch()
    (inner / "pyproject.toml").unlink()
    assert Card(None, path).project == tmp_path / "outer"
    (inner / marker).mkdir() if marker == ".git" else (inner / marker).touch()
    assert cards.load(path).project == inner


def test_paths_are_those_of_the_card_s_folder(tmp_path, monkeypatch):
    path = helpers.project(tmp_path, card=after(FACTORY, 'weights = "w/tiny.pt"'))
    monkeypatch.chdir(path.parent)
    assert cards.load(path).weights == path.parent / "w" / "tiny.pt"
    assert cards.load(Path("tiny.toml")).project == tmp_path


def test_a_reseeded_card_has_other_weights(tmp_path):
    card = load(tmp_path, after(FACTORY, 'weights = "tiny.pt"'))
    other = card.reseeded(7, epochs=3)
    assert other.weights is None
    assert other.file.recipe.seed == 7
    assert other.file.recipe.arguments == {"epochs": 3}
    assert (card.weights.name, card.file.recipe.seed, card.file.recipe.arguments) == ("tiny.pt", 0, {})


NOT_YET = {
    "a table in place of a kind": replaced(KIND, 'perturbation = { kind = "gaussian" }'),
    "a number in quotes": replaced("[0.2, 0.8]", '["0.2", 0.8]'),
    "a strength that is true": replaced("[0.2, 0.8]", "[0.2, true]"),
    "a threshold that is true": CLAIMS + "accuracy = [true, 0.4]",
    "claimed strengths repeated": CLAIMS + "strengths = [0.2, 0.2]\naccuracy = [0.5, 0.6]",
    "a loss without a bound": CLAIMS + "loss = [inf, 2.0]",
    "a class of a metric that has none": CLAIMS + '"accuracy[0]" = [0.5, 0.4]',
    "a class without a name": CLAIMS + '"precision[]" = [0.5, 0.4]',
    "an argument that no hash can hold": after(FACTORY, "arguments = { x = inf }"),
    "an argument that is a date": after(FACTORY, "arguments = { x = 2020-01-01 }"),
    "a seed that no draw takes": after(CALLABLE, "seed = 4294967296"),
}


@pytest.mark.parametrize("card", NOT_YET.values(), ids=NOT_YET)
def test_a_card_that_would_fail_later(tmp_path, card):
    with pytest.raises(CardError):
        load(tmp_path, card)
