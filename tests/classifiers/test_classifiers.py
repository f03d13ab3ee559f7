"""From a card to a module: what loading lists as its sources; factories that print, hang, exit or lack arguments."""

import contextlib
import sys
import time

import helpers
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.classifiers import build, call_factory, weights
from robustness.doubts.checks import run_checks
from robustness.errors import ModelError, RobustnessError
from robustness.perturbations import FGSM, Clean
from robustness.sweep.runner import run_sweep

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


def during(code):
    """A project's module whose factory does something first."""
    return PLAIN.replace("    return nn.S", f"    {code}\n    return nn.S")


def write(folder, source=PLAIN, **modules):
    """A project's card, and weights that fit a linear classifier of digits."""
    path = helpers.project(folder, source, **modules)
    file = path.parent / "w.safetensors"
    file.write_bytes(weights.to_bytes(helpers.linear(helpers.digits()).state_dict(), {}))
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


def with_arguments(table):
    return helpers.CARD.replace('factory"', f'factory"\narguments = {table}', 1)


def test_arguments_reach_the_factory(tmp_path):
    card = cards.load(helpers.project(tmp_path, card=with_arguments("{{ classes = 3 }}")))
    assert build.build_module(card)[1].out_features == 3
    with pytest.raises(ModelError, match=r"1\.weight \(10, 784\) instead of \(3, 784\)"):
        build.load_model(card, write(tmp_path / "other")[1])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{{ classs = 10 }}", "got an unexpected keyword argument 'classs'; it takes (classes=10)"),
        ("{{ classes = 10, width = 2 }}", "got an unexpected keyword argument 'width'"),
    ],
)
def test_arguments_that_it_does_not_take(tmp_path, table, said):
    """Catches: a TypeError from within the factory taken for one of its call, or no word on what it takes."""
    with pytest.raises(ModelError) as caught:
        load(tmp_path, card=with_arguments(table))
    assert said in str(caught.value)
    assert "[model.arguments]" in str(caught.value)


FOREIGN = {
    "import pytest; pytest.skip('no')": "raised Skipped",
    "import pytest; pytest.xfail('no')": "raised XFailed",
    "import pytest; pytest.exit('no', 0)": "raised Exit",
    "import unittest; raise unittest.SkipTest('no')": "raised SkipTest",
    "raise GeneratorExit": "raised GeneratorExit",
    "raise KeyboardInterrupt": "raised KeyboardInterrupt",
}
EXITS = {
    "import sys; sys.exit(3)": r"called sys\.exit\(3\)",
    "exit()": r"called sys\.exit\(None\)",
    "raise SystemExit('usage: net')": r"called sys\.exit\('usage: net'\); a factory must return its module",
}
WRONG = {
    "import": (
        "import no_such_thing\n" + PLAIN, "importing raised ModuleNotFoundError: No module named 'no_such_thing'",
    ),
    "error of an import": ("1 / 0\n" + PLAIN, "importing raised ZeroDivisionError"),
    "gone": (PLAIN + "\ndel factory", "has no callable 'factory'"),
    "number": (PLAIN + "\nfactory = 3", "has no callable 'factory'"),
    "error": (during("raise ValueError('no')"), "factory raised ValueError: no"),
    "type error": (during("raise TypeError('mine')"), "factory raised TypeError: mine"),
    "argument": (
        PLAIN.replace("classes=10", "classes"), r"missing a required argument: 'classes'; it takes \(classes\)",
    ),
    "nothing": (PLAIN.replace("return nn.S", "nn.S"), r"must return a torch\.nn\.Module, got NoneType"),
    "class": (during("return nn.Linear"), r"must return a torch\.nn\.Module, got type"),
    **{f"called: {code}": (during(code), said) for code, said in (FOREIGN | EXITS).items()},
    **{
        f"imported: {code}": (f"{code}\n{PLAIN}", said)
        for code, said in (FOREIGN | EXITS).items() if code != "raise KeyboardInterrupt"
    },
}  # fmt: skip


@pytest.mark.parametrize(("source", "message"), WRONG.values(), ids=WRONG)
def test_what_goes_wrong_names_card_and_factory(tmp_path, source, message):
    """Catches: a traceback; a factory that skips the test which asks for it, or ends the run or a thread in silence."""
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


def test_a_helper_that_is_imported_by_name_is_listed_for_each_card(tmp_path):
    """Catches: a helper that is listed for the card that imported it first, and for no other."""
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


BY_PATH = """
    import importlib.util
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("under_another_name", Path(__file__).parent / "odd-name.py")
    module = sys.modules["under_another_name"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
"""


@pytest.mark.parametrize(
    ("code", "listed"),
    [
        (BY_PATH.strip(), "odd-name.py"),
        ("from late_package import width", "late_package/__init__.py"),
    ],
    ids=["by its path", "by a function"],
)
def test_what_a_factory_imports_when_it_is_called_is_listed(tmp_path, code, listed):
    """Catches: a list of what the module itself imports alone; distributions of packages that are left out."""
    source = "import sys\nimport sklearn.base\nimport safetensors\n" + during(code)
    loaded = load(tmp_path, source, **{"odd-name": "width = 10", "late_package.__init__": "width = 1"})
    assert listed in loaded.sources
    assert {"scikit-learn", "safetensors", "torch", "numpy"} <= set(loaded.distributions)


def rewritten(card, factory):
    """The same card with another factory."""
    card.path.write_text(card.path.read_text().replace(card.file.model.factory, factory))
    return cards.load(card.path)


@pytest.mark.parametrize("where", ["at the top", "in the factory"])
def test_nor_may_their_helpers_have_one_name(tmp_path, where):
    statement = "from shared_name import width"
    source = f"{statement}\n{PLAIN}" if where == "at the top" else during(statement)
    load(tmp_path / "first", source, shared_name="width = 1")
    with pytest.raises(ModelError, match=r"shared_name is loaded from .*first.*two projects in one run"):
        load(tmp_path / "second", source, shared_name="width = 2")


def test_a_project_finds_its_own_helpers_whichever_was_loaded_last(tmp_path):
    """Both folders are on the path, and the first one's comes before the second's by then."""
    late = during("from helper_of_both import width")
    load(tmp_path / "second")
    load(tmp_path / "first", helper_of_both="width = 1")
    assert "helper_of_both.py" in load(tmp_path / "second", late, helper_of_both="width = 2").sources
    assert sys.modules["helper_of_both"].width == 2
    assert sys.path.count(str(tmp_path / "second")) == 1


@pytest.mark.parametrize(
    ("names", "clash"),
    [(("same_name", "same_name"), "same_name"), (("common_package.first", "common_package.second"), "common_package")],
    ids=["module", "package"],
)
def test_two_projects_with_a_module_or_package_of_one_name_are_refused(tmp_path, names, clash):
    """The second would silently be tested with the first one's code, or a module of its package not be found."""
    cards_ = []
    for home, name in zip(("first", "second"), names, strict=True):
        card, file = write(tmp_path / home, **{name: PLAIN}, **({f"{clash}.__init__": ""} if clash != name else {}))
        cards_.append(rewritten(card, f"{name}:factory"))
    build.load_model(cards_[0], file)
    with pytest.raises(
        ModelError, match=rf"{clash} is loaded from \S*/first/\S*{clash}\S*.*this card's is \S*/second/"
    ):
        build.load_model(cards_[1], file)


# Factories that print, hang or exit


def test_what_it_prints_is_kept_apart_and_said(tmp_path, capsys):
    """Catches: output of a factory in the middle of a table, on either stream, or lost."""
    loaded = load(tmp_path, during("import sys; print('loading'); print('weights', file=sys.stderr)"))
    assert capsys.readouterr() == ("", "")
    (notice,) = loaded.notices
    assert "printed 2 line(s) while it was called: loading\nweights" in notice
    assert load(tmp_path).notices == ()


def test_the_harness_says_what_a_factory_printed(tmp_path):
    """Catches: a notice that stays on the module."""
    path = helpers.project(tmp_path, during("print('hello')"))
    workspace = helpers.open_workspace(path)
    workspace.classifier(cards.load(path))
    assert any("tiny: " in notice and "hello" in notice for notice in workspace.notices)


def test_one_that_hangs_is_left_behind(tmp_path, monkeypatch):
    """Catches: a limit that is noticed only when the factory comes back."""
    monkeypatch.setenv("ROBUSTNESS_FACTORY_SECONDS", "0.2")
    with pytest.raises(ModelError, match=r"has not returned after 0\.2 seconds; does it wait for input"):
        load(tmp_path, during("import time; time.sleep(60)"))
    assert sys.stdout is not None
    print("printed", flush=True)  # the stream is the test's own again


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "1e300"])
def test_limits_that_cannot_be(given):
    with pytest.raises(ModelError, match="must be a number of seconds above 0, got"):
        call_factory.seconds_from_environment({"ROBUSTNESS_FACTORY_SECONDS": given})


def test_an_interruption_reaches_the_run(monkeypatch):
    """Catches: a wait that Ctrl-C does not end."""

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("threading.Thread.join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_factory.call_with_timeout("nets:net", lambda: time.sleep(0))


@pytest.mark.parametrize("code", [*FOREIGN, "import sys; sys.exit(0)"])
def test_a_forward_that_skips_is_an_error_of_its_cells(code):
    """Catches: a sweep that ends with what its model raised, in a thread or before."""

    class Skips(nn.Linear):
        def forward(self, inputs):
            exec(code)

    images = helpers.images(30)
    for attack in (Clean(), FGSM()):
        if code == "raise KeyboardInterrupt":
            continue  # before a sweep it cannot be told from the user's
        evidence = run_sweep(Skips(16, 3), images, attack, [0.0])
        assert evidence.status[0].startswith("raised "), code
        assert evidence.failed

    class Late(nn.Linear):
        def forward(self, inputs):
            if len(inputs) == 30:
                exec(code)
            return super().forward(inputs.flatten(1))

    evidence = run_sweep(Late(16, 3), images, Clean(), [0.0], batch_size=30)
    assert evidence.status[0].startswith("raised ")
    if code != "raise KeyboardInterrupt":
        with contextlib.suppress(RobustnessError):
            assert any(each["doubted"] is None for each in run_checks(Skips(16, 3), images).values())
    assert torch.is_grad_enabled()
