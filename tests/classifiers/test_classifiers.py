"""From a card to a module: what loading runs into, and what it lists as its sources."""

import sys

import helpers
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.classifiers import build, weights
from robustness.errors import ModelError

PLAIN = helpers.MODULE


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch):
    """Leave neither paths nor modules behind."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file rewritten within a second is read anew
    yield
    for name in set(sys.modules) - before:
        if not str(getattr(sys.modules[name], "__file__", "")).startswith((sys.prefix, sys.base_prefix)):
            del sys.modules[name]


def write(folder, source=PLAIN, **modules):
    """A project's card, and weights that fit a linear classifier of digits."""
    path = helpers.project(folder, source, **modules)
    file = path.parent / "w.safetensors"
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    file.write_bytes(weights.to_bytes(module.state_dict(), {}))
    return cards.load(path), file


def load(folder, source=PLAIN, **modules):
    return build.load_model(*write(folder, source, **modules))


def test_a_module_is_loaded_for_evaluation_with_its_weights(tmp_path):
    card, file = write(tmp_path)
    state = torch.get_rng_state()
    loaded = build.load_model(card, file)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m.training for m in loaded.module.modules())
    due = weights.read(file)
    assert all(torch.equal(value, due[name]) for name, value in loaded.module.state_dict().items())
    (name,) = loaded.sources
    assert name == f"{card.file.model.factory.partition(':')[0]}.py"
    assert set(loaded.distributions) == {"numpy", "torch"}


def test_arguments_reach_the_factory(tmp_path):
    path = helpers.project(
        tmp_path, card=helpers.CARD.replace('factory"', 'factory"\narguments = {{ classes = 3 }}', 1)
    )
    card = cards.load(path)
    assert build.build_module(card)[1].out_features == 3
    with pytest.raises(ModelError, match=r"1\.weight \(10, 784\) instead of \(3, 784\)"):
        build.load_model(card, write(tmp_path / "other")[1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_thing\n" + PLAIN, "importing raised ModuleNotFoundError: No module named 'no_such_thing'"),
        ("1 / 0\n" + PLAIN, "importing raised ZeroDivisionError"),
        (PLAIN + "\ndel factory", "has no callable 'factory'"),
        (PLAIN + "\nfactory = 3", "has no callable 'factory'"),
        (PLAIN.replace("return nn", "raise ValueError('no')\n    return nn"), "factory raised ValueError: no"),
        (PLAIN.replace("classes=10", "classes"), r"missing a required argument: 'classes'; it takes \(classes\)"),
        (PLAIN.replace("return nn.S", "nn.S"), r"must return a torch\.nn\.Module, got NoneType"),
        (PLAIN.replace("return nn.S", "return nn.Linear\n    nn.S"), r"must return a torch\.nn\.Module, got type"),
    ],
)
def test_what_goes_wrong_names_card_and_factory(tmp_path, source, message):
    card, file = write(tmp_path, source)
    with pytest.raises(ModelError, match=message) as caught:
        build.load_model(card, file)
    assert str(card.path) in str(caught.value)
    assert card.file.model.factory in str(caught.value)


HELPER = "import leaf_of_{0}\nwidth = 10"
BY_NAME = """
import importlib
from torch import nn

def factory(classes=10):
    helper = importlib.import_module("helper_of_" + {0!r})
    return nn.Sequential(nn.Flatten(), nn.Linear(784, helper.width))

def recipe(module, images, job): ...
"""


def by_name(name):
    """A project whose factory imports a helper, which imports a leaf, by a name that no statement shows."""
    return BY_NAME.format(name), {f"helper_of_{name}": HELPER.format(name), f"leaf_of_{name}": ""}


def test_a_helper_that_is_imported_by_name_is_listed(tmp_path):
    source, modules = by_name("one")
    loaded = load(tmp_path, source, **modules)
    assert {"helper_of_one.py", "leaf_of_one.py"} < set(loaded.sources)


def test_and_also_when_another_card_has_imported_it_before(tmp_path):
    source, modules = by_name("two")
    first, file = write(tmp_path, source, **modules)
    second, _ = write(tmp_path, source, **modules)
    assert first.file.model.factory != second.file.model.factory
    for card in (first, second, first):
        listed = set(build.load_model(card, file).sources)
        own = card.file.model.factory.partition(":")[0]
        assert {f"{own}.py", "helper_of_two.py", "leaf_of_two.py"} <= listed


def test_or_a_module_of_the_package_did_when_it_was_imported(tmp_path):
    """A registry: the package imports every file that lies in it, once."""
    registry = """
import importlib, pkgutil
for m in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{m.name}")
"""
    source = "from registry_of_nets import wide\n" + PLAIN
    modules = {"registry_of_nets.__init__": registry, "registry_of_nets.wide": "", "registry_of_nets.deep": ""}
    first, file = write(tmp_path, source, **modules)
    second, _ = write(tmp_path, source, **modules)
    for card in (first, second):
        listed = set(build.load_model(card, file).sources)
        assert {f"registry_of_nets/{name}.py" for name in ("__init__", "wide", "deep")} <= listed


def test_a_card_that_names_its_imports_is_not_bound_to_those_of_others(tmp_path):
    """Else every evidence would be older than every other model's code."""
    load(tmp_path, "import part_of_first\n" + PLAIN, part_of_first="")
    second = load(tmp_path, "import part_of_second\n" + PLAIN, part_of_second="")
    assert "part_of_second.py" in second.sources
    assert "part_of_first.py" not in second.sources
    assert len(second.sources) == 2


def test_a_file_that_is_loaded_by_its_path_is_listed(tmp_path):
    source = """
import importlib.util, sys
from pathlib import Path
from torch import nn

def factory():
    spec = importlib.util.spec_from_file_location("under_another_name", Path(__file__).parent / "odd-name.py")
    module = sys.modules["under_another_name"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, module.width))

def recipe(): ...
"""
    (tmp_path / "odd-name.py").write_text("width = 10")
    assert "odd-name.py" in load(tmp_path, source).sources


def test_functions_that_import_when_they_are_called(tmp_path):
    source = PLAIN.replace("    return nn.S", "    from late_package import width\n    return nn.S")
    listed = load(tmp_path, source, **{"late_package.__init__": "width = 1"}).sources
    assert "late_package/__init__.py" in listed


def test_distributions_are_those_of_the_packages_it_imports(tmp_path):
    loaded = load(tmp_path, "import sklearn.base\nimport safetensors\n" + PLAIN)
    assert {"scikit-learn", "safetensors", "torch", "numpy"} <= set(loaded.distributions)


def rewritten(card, factory):
    """The same card with another factory."""
    card.path.write_text(card.path.read_text().replace(card.file.model.factory, factory))
    return cards.load(card.path)


def test_two_projects_with_a_module_of_one_name_are_refused(tmp_path):
    """The second would silently be tested with the first one's code."""
    made = [write(tmp_path / home, same_name=PLAIN) for home in ("first", "second")]
    one, other = (rewritten(card, "same_name:factory") for card, _ in made)
    build.load_model(one, made[0][1])
    with pytest.raises(ModelError) as caught:
        build.load_model(other, made[1][1])
    message = str(caught.value)
    assert f"same_name is loaded from {tmp_path}/first/same_name.py" in message
    assert f"this card's is {tmp_path}/second/same_name.py" in message


@pytest.mark.parametrize("where", ["at the top", "in the factory"])
def test_nor_may_their_helpers_have_one_name(tmp_path, where):
    statement = "from shared_name import width\n"
    source = (
        statement + PLAIN
        if where == "at the top"
        else PLAIN.replace("    return nn.S", f"    {statement}    return nn.S")
    )
    load(tmp_path / "first", source, shared_name="width = 1")
    with pytest.raises(ModelError, match=r"shared_name is loaded from .*first.*two projects in one run"):
        load(tmp_path / "second", source, shared_name="width = 2")


def test_a_project_finds_its_own_helpers_whichever_was_loaded_last(tmp_path):
    """Both folders are on the path, and the first one's comes before the second's by then."""
    late = PLAIN.replace("    return nn.S", "    from helper_of_both import width\n    return nn.S")
    load(tmp_path / "second")
    load(tmp_path / "first", helper_of_both="width = 1")
    assert "helper_of_both.py" in load(tmp_path / "second", late, helper_of_both="width = 2").sources
    assert sys.modules["helper_of_both"].width == 2
    assert sys.path.count(str(tmp_path / "second")) == 1


def test_nor_their_packages(tmp_path):
    """The second package has a module that the first has not: say why it is not found."""
    made = [
        write(tmp_path / home, **{"common_package.__init__": "", f"common_package.{home}": PLAIN})
        for home in ("first", "second")
    ]
    one, other = (
        rewritten(card, f"common_package.{home}:factory")
        for (card, _), home in zip(made, ("first", "second"), strict=True)
    )
    build.load_model(one, made[0][1])
    with pytest.raises(ModelError, match=r"common_package is loaded from .*first.*this card's is .*second"):
        build.load_model(other, made[1][1])


def test_weights_that_cannot_be_read(tmp_path):
    card, file = write(tmp_path)
    file.write_bytes(b"torn")
    with pytest.raises(ModelError, match="truncated"):
        build.load_model(card, file)
