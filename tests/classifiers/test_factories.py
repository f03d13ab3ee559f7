"""A factory that prints, hangs, exits or lacks arguments: a sentence each, and a run that goes on."""

import contextlib
import sys
import time

import helpers
import pytest

from robustness import cards
from robustness.classifiers import build, call_factory, weights
from robustness.errors import ModelError

BODY = "    return nn.Sequential"


@pytest.fixture
def load(tmp_path, own_path, monkeypatch):
    """Load the classifier of a project whose factory does something first."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(code, **settings):
        source = "import sys, time\n" + helpers.MODULE.replace(BODY, f"    {code}\n{BODY}")
        path = helpers.project(tmp_path, source, **settings)
        file = path.parent / "w.safetensors"
        module = helpers.linear(helpers.digits())
        file.write_bytes(weights.to_bytes(module.state_dict(), {}))
        return build.load_model(cards.load(path), file)

    return load


def test_what_it_prints_is_kept_apart_and_said(load, capsys):
    """Catches: output of a factory in the middle of a table, on either stream, or lost."""
    loaded = load("print('loading'); print('weights', file=sys.stderr)")
    assert capsys.readouterr() == ("", "")
    (notice,) = loaded.notices
    assert "printed 2 line(s) while it was called: loading\nweights" in notice
    assert load("pass").notices == ()


def test_the_harness_says_what_a_factory_printed(tmp_path, own_path):
    """Catches: a notice that stays on the module."""
    path = helpers.project(tmp_path, helpers.MODULE.replace(BODY, f"    print('hello')\n{BODY}"))
    harness = helpers.harness(path)
    harness.classifier(cards.load(path))
    assert any("tiny: " in notice and "hello" in notice for notice in harness.notices)


@pytest.mark.parametrize(("code", "said"), [("sys.exit(3)", "sys.exit(3)"), ("exit()", "sys.exit(None)")])
def test_one_that_exits_ends_nothing(load, code, said):
    """Catches: SystemExit through pytest, or a thread that ends in silence."""
    with pytest.raises(ModelError) as caught:
        load(code)
    assert f"called {said}" in str(caught.value)


def test_a_module_that_exits_when_it_is_imported(load, tmp_path):
    path = helpers.project(tmp_path, "raise SystemExit('usage: net')\n" + helpers.MODULE)
    with pytest.raises(ModelError, match=r"called sys\.exit\('usage: net'\); a factory must return its module"):
        build.build_module(cards.load(path))


def test_one_that_hangs_is_left_behind(load, monkeypatch):
    """Catches: a limit that is noticed only when the factory comes back."""
    monkeypatch.setenv("ROBUSTNESS_FACTORY_SECONDS", "0.2")
    with pytest.raises(ModelError, match=r"has not returned after 0\.2 seconds; does it wait for input"):
        load("time.sleep(60)")
    assert sys.stdout is not None
    print("printed", flush=True)  # the stream is the test's own again


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "1e300"])
def test_limits_that_cannot_be(given):
    with pytest.raises(ModelError, match="must be a number of seconds above 0, got"):
        call_factory.seconds_from_environment({"ROBUSTNESS_FACTORY_SECONDS": given})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("arguments = {{ classs = 10 }}", "got an unexpected keyword argument 'classs'; it takes (classes=10)"),
        ("arguments = {{ classes = 10, width = 2 }}", "got an unexpected keyword argument 'width'"),
    ],
)
def test_arguments_that_it_does_not_take(load, table, said):
    """Catches: a TypeError from within the factory taken for one of its call, or no word on what it takes."""
    with pytest.raises(ModelError) as caught:
        load("pass", card=helpers.CARD.replace('factory"', f'factory"\n{table}', 1))
    assert said in str(caught.value)
    assert "[model.arguments]" in str(caught.value)


def test_an_error_of_its_own_keeps_its_words(load):
    """Catches: every TypeError called one of arguments."""
    with pytest.raises(ModelError, match="factory raised TypeError: mine"):
        load("raise TypeError('mine')")


def test_an_interruption_reaches_the_run(monkeypatch):
    """Catches: a wait that Ctrl-C does not end."""

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("threading.Thread.join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_factory.call_with_timeout("nets:net", lambda: time.sleep(0))


FOREIGN = [
    "import pytest; pytest.skip('no')",
    "import pytest; pytest.xfail('no')",
    "import pytest; pytest.exit('no', 0)",
    "import unittest; raise unittest.SkipTest('no')",
    "raise GeneratorExit",
    "raise KeyboardInterrupt",
]


@pytest.mark.parametrize("code", FOREIGN)
def test_what_is_for_tests_is_no_factorys(load, code):
    """Catches: a factory that skips the test which it is asked for by, or ends the run."""
    with pytest.raises(ModelError, match=r"raised (Skipped|XFailed|Exit|SkipTest|GeneratorExit|KeyboardInterrupt)"):
        load(code)


@pytest.mark.parametrize("code", FOREIGN[:5])
def test_an_import_that_skips(tmp_path, own_path, code):
    path = helpers.project(tmp_path, code + "\n" + helpers.MODULE)
    with pytest.raises(ModelError, match=r"raised (Skipped|XFailed|Exit|SkipTest|GeneratorExit)"):
        build.build_module(cards.load(path))


@pytest.mark.parametrize("code", [*FOREIGN, "import sys; sys.exit(0)"])
def test_a_forward_that_skips_is_an_error_of_its_cells(code):
    """Catches: a sweep that ends with what its model raised, in a thread or before."""
    import torch
    from torch import nn

    from robustness.doubts.checks import run_checks
    from robustness.errors import RobustnessError
    from robustness.perturbations import FGSM, Clean
    from robustness.sweep.runner import run_sweep

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
