"""Perturbations and data sets of another distribution: installed beside the package, named by a card, swept."""

import sys

import helpers
import numpy as np
import pytest

from robustness import cards
from robustness.data import DATASETS, DataSpec, load
from robustness.errors import CardError, EntryPointError
from robustness.perturbations import FGSM, PERTURBATIONS, GaussianNoise, Perturbation
from robustness.util.registry import Registry

SALT = '''
from typing import ClassVar, Literal

from robustness.perturbations import Perturbation


class Salt(Perturbation):
    """Every pixel above a strength becomes white."""

    kind: Literal["salt"] = "salt"
    family: ClassVar[str] = "noise"
    strength_name: ClassVar[str] = "t"
    uses_model: ClassVar[bool] = False

    def prepare(self, batch):
        def perturb(strength, out):
            return out.copy_((batch.inputs > strength).float())
        return perturb


class Pepper(Salt):
    pass


class Other(Perturbation):
    kind: Literal["other"] = "other"
    family: ClassVar[str] = "spices"
    strength_name: ClassVar[str] = "t"
'''
STRIPES = """
import numpy as np

from robustness.data import DatasetReader, from_arrays


def parts(**_):
    pixels = np.zeros((20, 28, 28), np.uint8)
    pixels[::2, ::2] = 255
    return {"all": from_arrays(pixels, np.tile([0, 1], 10), ("striped", "black"))}


READER = DatasetReader(parts, embedded=True)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with entry points: a folder of files and metadata on Python's path."""

    def put(group, points, name="spices", **modules):
        site = tmp_path / name
        helpers.install_entry_points(site, group, dict(line.split(" = ") for line in points.splitlines()), name)
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(site)
        return site

    helpers.forget_entry_points(PERTURBATIONS, DATASETS)
    yield put
    helpers.forget_entry_points(PERTURBATIONS, DATASETS)


def test_a_perturbation_of_another_distribution_is_swept(install, tmp_path):
    """
    Catches: a closed registry, a suite that leaves its claims out, evidence that outlives a change of its code.

    The expected decisions come from the images and the linear model by NumPy.
    """
    site = install("robustness.perturbations", "salt = salt:Salt", salt=SALT)
    text = (
        helpers.CARD + '\n[sweeps.salt]\nkind = "salt"\nstrengths = [0.3, 0.8]\n[claims.salt]\naccuracy = [0.1, 0.1]\n'
    )
    path = helpers.project(tmp_path / "project", card=text)
    workspace, card = helpers.open_workspace(path), cards.load(path)
    assert {claim.family for claim in card.claims() if claim.sweep == "salt"} == {"noise"}

    evidence = workspace.evidence(card, "salt")
    images = workspace.images(card)
    weight, bias = (value.numpy() for value in workspace.classifier(card).module.state_dict().values())
    for strength in (0.3, 0.8):
        white = (images.batch(0, len(images)) > strength).reshape(len(images), -1)
        predictions = evidence.predictions[evidence.index(str(strength))]
        assert np.array_equal(predictions, (white @ weight.T + bias).argmax(1))

    (site / "salt.py").write_text(SALT.replace("> strength", ">= strength"))
    again = helpers.open_workspace(path)
    stored, reason = again.store.evidence(again.key(card, "salt"), card.project)
    assert (stored, "salt.py" in reason) == (None, True)


def test_a_data_set_of_another_distribution_is_read(install, tmp_path):
    """Catches: a name that the card's table refuses, or whose reader is not called."""
    install("robustness.datasets", "stripes = stripes:READER", stripes=STRIPES)
    spec = DataSpec.model_validate({"name": "stripes", "split": {"kind": "balanced", "per_class": 4}})
    images = load(spec, "test", root=tmp_path, cache=tmp_path)
    assert images.classes == ("striped", "black")
    assert [bool(image.any()) for image in images.batch(0, len(images))] == [label == 0 for label in images.labels]


@pytest.mark.parametrize(
    ("points", "module", "message"),
    [
        ("salt = salt:Salz", SALT, r"entry point `salt = salt:Salz` of spices .* cannot be imported \(AttributeError"),
        ("salt = salt:Salt", "1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\); fix or uninstall"),
        (
            "salt = salt:Literal",
            SALT,
            "must be a subclass of robustness.perturbations.Perturbation, got typing.Literal",
        ),
        ("salt = salt:Pepper", SALT.replace('"salt"', '"pepper"'), "must have the default 'salt', got 'pepper'"),
        (
            "salt = salt:Other",
            SALT.replace('"other"', '"salt"'),
            "`family` must be one of clean, noise, .* got 'spices'",
        ),
        ("fgsm = salt:Salt\nsalt = salt:Salt", SALT, "'fgsm' is built in; rename the entry point"),
    ],
    ids=["attribute", "import", "class", "kind", "family", "built in"],
)
def test_a_broken_entry_point_is_named(install, tmp_path, points, module, message):
    """Catches: a traceback of another distribution's code, a built-in kind that another distribution replaces."""
    install("robustness.perturbations", points, salt=module)
    path = helpers.project(
        tmp_path / "project", card=helpers.CARD + '\n[sweeps.salt]\nkind = "salt"\nstrengths = [0.3]\n'
    )
    with pytest.raises(CardError, match=message):
        cards.load(path)
    assert PERTURBATIONS["fgsm"] is FGSM


def test_two_distributions_with_one_name_are_named(install):
    install("robustness.perturbations", "salt = salt:Salt", salt=SALT)
    install("robustness.perturbations", "salt = pepper:Salt", name="kitchen", pepper=SALT)
    with pytest.raises(EntryPointError, match="also has the name 'salt'; uninstall one of them"):
        PERTURBATIONS["salt"]


def test_names_are_listed_without_an_import(install, tmp_path):
    """Catches: a distribution that is imported by every run, and one that the message of a mistyped kind leaves out."""
    install("robustness.perturbations", "salt = salt:Salt", salt="1 / 0")
    path = helpers.project(
        tmp_path / "project", card=helpers.CARD + '\n[sweeps.salt]\nkind = "slat"\nstrengths = [0.3]\n'
    )
    with pytest.raises(CardError, match="external, salt, got 'slat'; did you mean 'salt'"):
        cards.load(path)
    assert "salt" not in sys.modules


def test_classes_are_imported_when_they_are_looked_up():
    """Catches: one sweep that imports every attack."""
    code = (
        "import sys; from robustness.perturbations import PERTURBATIONS; assert 'fgsm' in PERTURBATIONS;"
        "PERTURBATIONS['gaussian']; print(sorted(m for m in sys.modules if m.startswith('robustness.perturbations.')))"
    )
    assert helpers.run(code).split("'")[1::2] == ["robustness.perturbations.base", "robustness.perturbations.noise"]
    assert (PERTURBATIONS["gaussian"], issubclass(GaussianNoise, Perturbation)) == (GaussianNoise, True)
    with pytest.raises(KeyError):
        PERTURBATIONS["nothing"]
    assert isinstance(PERTURBATIONS, Registry)
