"""A factory that prints, hangs, exits or lacks arguments: a sentence each, and a run that goes on."""

import sys
import time

import helpers
import pytest

from robustness import cards, classifiers, factories, weights
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
        return classifiers.load(cards.load(path), file)

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
        classifiers.built(cards.load(path))


def test_one_that_hangs_is_left_behind(load, monkeypatch):
    """Catches: a limit that is noticed only when the factory comes back."""
    monkeypatch.setenv("ROBUSTNESS_FACTORY_SECONDS", "0.2")
    with pytest.raises(ModelError, match=r"has not come back after 0\.2 seconds; does it wait for input"):
        load("time.sleep(60)")
    assert sys.stdout is not None
    print("printed", flush=True)  # the stream is the test's own again


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "1e300"])
def test_limits_that_cannot_be(given):
    with pytest.raises(ModelError, match="must be a number of seconds above 0, got"):
        factories.seconds({"ROBUSTNESS_FACTORY_SECONDS": given})


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
        factories.called("nets:net", lambda: time.sleep(0))
