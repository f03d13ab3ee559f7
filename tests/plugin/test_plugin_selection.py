"""Which claims a run takes, what its options do, and whose suites it leaves alone."""

import json
import re

import pytest
from plugin_project import CARD, IDS

from robustness.plugin.config import OPTIONS

ARRAY = CARD.replace('name = "digits"', 'name = "array"\nfile = "far.npz"').replace(
    'split = { kind = "balanced", per_class = 20 }', ""
)


def named(name: str, card: str = CARD) -> str:
    return card.replace('"tiny"', f'"{name}"', 1)


def models(run) -> list[str]:
    return [model["name"] for model in run.report["models"]]


def errors(run, said: str) -> int:
    """Count how often it is said, not counting pytest's own summary: in CI that has the lines whole."""
    return sum(said in line for line in (run.out + run.err).splitlines() if not line.startswith("ERROR "))


@pytest.mark.parametrize("how", [(), ("-n0",), ("-p", "no:xdist")], ids=["bare", "n0", "no xdist"])
def test_every_claim_once_in_the_order_of_the_card(project, how):
    """Catches: ids by number, a random order, claims taken by two suites or by none, a need for xdist."""
    run = project.fill().run("suites", *how)
    assert run.ret == 0
    assert [claim["nodeid"] for claim in run.claims] == IDS
    assert set(run.outcomes.values()) == {"passed"}
    assert "passed: all 7 claims on 1 model" in run.summary


def test_models_by_name(project):
    """Catches: cards on data from elsewhere taken unasked, named ones not, an option that counts once."""
    project.fill().write("models/other.toml", named("other")).write("models/far.toml", named("far", ARRAY))
    assert models(project.run("suites")) == ["other", "tiny"]  # in the order of the files
    run = project.run("suites", "--robustness-model=tiny", "--robustness-model=far", "-k", "clean")
    assert list(run.outcomes) == [
        f"{name}:clean:0:{metric}" for name in ("tiny", "far") for metric in ("accuracy", "loss")
    ]
    assert models(project.run("suites", "--robustness-model=other", "-k", "clean")) == ["other"]
    # Evidence is keyed by content: nothing was swept anew for a card of another name.
    assert project.entries() == project.entries(of=project.warm)


def test_unknown_model(project):
    """Catches: a green run, a run of all models, an error once a module, one that does not say what there is."""
    run = project.run("suites", "--robustness-model=tiny", "--robustness-model=tony")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert run.err.count("no model is called tony; known: tiny") == 1
    assert "test_clean" not in run.out + run.err


@pytest.mark.parametrize(
    "given", ["models/tiny.toml", "models", "link", "models/tiny.toml --robustness-card=link", "hook models/tiny.toml"]
)
def test_cards_by_path(project, given):
    """Catches: a need for the hook, folders not looked into, one card through two paths called a clash of names."""
    (project.root / "link").symlink_to("models")
    if given.startswith("hook "):
        given = given.removeprefix("hook ")
        project.edit(project.root / "conftest.py", ('models"', 'link"'))
    else:
        (project.root / "conftest.py").unlink()
    run = project.fill().run("suites", *f"--robustness-card={given}".split())
    assert (run.ret, models(run)) == (0, ["tiny"])


@pytest.mark.parametrize("given", ["'models'", "['models/tiny.toml']", "config.rootpath / 'models'"])
def test_what_hooks_give(project, monkeypatch, given):
    """Catches: a path alone taken letter by letter, paths that start where pytest was called."""
    text = f"def pytest_robustness_models(config): return {given}\n"
    project.fill().write("conftest.py", text + "def pytest_robustness_reports(config): return 'own.json'\n")
    monkeypatch.chdir(project.root / "suites")
    run = project.plain("-k", "loss")
    assert run.ret == 0
    assert json.loads((project.root / "own.json").read_text())["counts"]["passed"] == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "pytest_robustness_models must return paths, as text or Path, got 3"),
        ("return ['models', None]", "pytest_robustness_models must return paths, as text or Path, got None"),
        ("raise ValueError('boom')", "pytest_robustness_models raised ValueError: boom ("),
    ],
)
@pytest.mark.parametrize("quiet", [True, False])
def test_hooks_that_cannot_be(project, body, said, quiet):
    """Catches: a traceback through the plugin for every module of the suites."""
    project.write("conftest.py", f"def pytest_robustness_models(config):\n    {body}\n")
    run = project.run("suites", *["-q"] * quiet)
    assert run.ret == (pytest.ExitCode.INTERRUPTED if quiet else pytest.ExitCode.USAGE_ERROR)
    assert errors(run, said) == 1
    assert "Traceback" not in (run.out + run.err)


def test_a_project_table_that_cannot_be_is_said_once(project):
    """Catches: one error a module where pytest is quiet, and so makes no header that would say it."""
    project.write("pyproject.toml", '[tool.robustness]\nmodels = "net.toml"\n')
    run = project.run("suites", "-q")
    assert run.ret == pytest.ExitCode.INTERRUPTED
    assert errors(run, "tool.robustness.models must be a list of paths") == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--robustness-card=models/none.toml", "there is no such card"),
        ("--robustness-seed=4294967296", "`seed` must lie in [0, 2**32), got 4294967296"),
        ("--robustness-seed=x", "invalid int value"),
        ("--robustness-device=tpu", "`device` must be cpu, cuda, cuda:N or auto, got 'tpu'"),
        ("--robustness-device=cuda:99", "this machine has"),
        ("--robustness-report=report.pdf", "must end in one of .html, .md, .json, .csv, .tex, got"),
        ("--robustness-report=models/", "must end in one of"),
        ("--robustness-factory=tiny_net:net", "`dataset` must be given"),
        ("--robustness-dataset=digits", "`factory` must be given"),
        ("--robustness-factory=timm:resnet18 --robustness-dataset=digits", "`weights` must be given for timm"),
        ("--robustness-factory=tiny_net:net --robustness-card=models", "must be the only one of its run"),
        ("--robustness-factory=tiny_net:net --robustness-model=tiny", "must be the only one of its run"),
        ("--robustness-profile=quik", "did you mean 'quick'?"),
        ("--robustness-images=0", "`images` must be at least 1, got 0"),
        ("--robustness-weights=gone.pt", "`weights` of tiny must be a file, got 'gone.pt'"),
        ("--robustness-weights=tony=models/tiny.toml", "no selected model is called 'tony'; selected: tiny"),
    ],
)
def test_options_that_cannot_be(project, option, said):
    """Catches: a traceback in every test instead of a sentence before the first."""
    run = project.run("suites", *option.split(), "-q")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert run.err.count(said) == 1
    assert "Traceback" not in run.err
    assert "collected" not in run.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('robustness_seed = "three"', "robustness_seed must be a whole number, got 'three'"),
        ('robustness_device = "tpu"', "`device` must be cpu"),
        ('robustness_report = ["report.pdf"]', "must end in one of"),
    ],
)
def test_ini_values_that_cannot_be(project, line, said):
    """Catches: checks of the command line's values alone."""
    project.write("pyproject.toml", f"[tool.pytest.ini_options]\n{line}\n")
    run = project.plain("suites", "-q")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert run.err.count(said) == 1


def test_ini_twins(project, monkeypatch):
    """Catches: an option without its twin, paths that start where pytest was called."""
    project.write(
        "pyproject.toml",
        """
        [tool.pytest.ini_options]
        robustness_model = ["far", "tiny"]
        robustness_card = ["extra/far.toml"]
        robustness_data = "my-data"
        robustness_store = "my-store"
        robustness_device = "cpu"
        robustness_seed = 3
        robustness_report = ["out/own.json", "out/own.md"]
        robustness_strict = true
        """,
    ).write("extra/far.toml", named("far", ARRAY))
    monkeypatch.delenv("ROBUSTNESS_STORE")
    monkeypatch.delenv("ROBUSTNESS_DATA")
    monkeypatch.chdir(project.root / "extra")
    run = project.plain("../suites", "-k", "clean and accuracy")
    assert run.ret == 1
    report = json.loads((project.root / "out" / "own.json").read_text())
    assert [model["name"] for model in report["models"]] == ["far", "tiny"]
    assert report["run"]["seed"] == 3
    assert (project.root / "out" / "own.md").exists()
    assert report["counts"]["error"] == 1  # strict: the data of "far" are not there
    assert f"no far.npz in {project.root / 'my-data'}" in run.out
    assert [path.name for path in (project.root / "my-store").iterdir() if path.name == "evidence"]
    assert f"store {project.root / 'my-store'}, data root {project.root / 'my-data'}" in run.out


def test_the_command_line_goes_before_the_ini(project):
    """Catches: the ini file's list added to what was asked for, its seed kept."""
    project.write("models/other.toml", named("other")).write(
        "pyproject.toml",
        """
        [tool.pytest.ini_options]
        robustness_seed = 3
        robustness_model = ["other"]
        robustness_report = ["own.json"]
        """,
    )
    run = project.fill().run("suites", "--robustness-seed=0", "--robustness-model=tiny")
    assert (run.ret, models(run), run.report["run"]["seed"]) == (0, ["tiny"], 0)
    assert not (project.root / "own.json").exists()
    assert project.entries() == project.entries(of=project.warm)  # seed 0 was there


def test_folders_from_option_environment_and_ini(project):
    """Catches: another order than the documented one."""
    project.write("pyproject.toml", '[tool.pytest.ini_options]\nrobustness_data = "ini"\nrobustness_store = "ini"\n')
    look = ("suites", "--collect-only")
    environment = f"store {project.store}, data root {project.root / 'data'}"  # which the fixture has set
    assert environment in project.plain(*look).out
    given = project.plain(*look, "--robustness-store=mine", "--robustness-data=yours").out
    assert "store mine, data root yours" in given


def test_seed_reaches_the_draws(project):
    """Catches: a seed in the header alone."""
    run = project.fill().run("suites", "--robustness-seed=5")
    assert run.ret == 0
    digests = {sweep["name"]: sweep["evidence"]["digest"] for sweep in run.report["models"][0]["sweeps"]}
    kept = project.evidence(of=project.warm)
    assert digests["clean"] == kept["tiny:clean"]
    assert digests["normal"] != kept["tiny:normal"]
    assert run.report["models"][0]["seed"] == 5


def test_help_explains_every_option_and_its_twin(project):
    text = " ".join(project.plain("--help").out.split())
    for name, _, explained in OPTIONS:
        assert f"--robustness-{name}" in text
        assert text.count(explained) == 2, name
        assert f"robustness_{name.replace('-', '_')} (" in text
    assert "robustness of image classifiers:" in text


def test_k_and_m_narrow(project):
    """Catches: claims that were deselected counted as passed, or as not run."""
    project.fill().write("test_mine.py", "def test_mine(): pass\n")
    run = project.run("suites", "-k", "normal and accuracy")
    assert run.ret == 0
    assert list(run.outcomes) == ["tiny:normal:0.3:accuracy", "tiny:normal:0.6:accuracy"]
    assert run.report["counts"]["not selected"] == 5
    assert run.report["verdict"] == "partial"
    run = project.run(".", "-m", "claims")
    assert (run.ret, len(run.outcomes)) == (0, 7)
    assert re.search(r"\d+ deselected", run.out)
    run = project.run(IDS[2])
    assert (run.ret, list(run.outcomes)) == (0, ["tiny:normal:0.3:accuracy"])


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures", "--markers", "--version"])
def test_looking_is_not_running(project, option):
    """Catches: `--collect-only` red because no claim ran, and a report that says so over the last one."""
    run = project.run("suites", option)
    assert run.ret == 0
    assert run.report == {}
    assert "failed: " not in run.out
    assert not project.store.exists()


MINE = """
import pytest, torch

def test_classifier(card, classifier):
    assert (card.name, card.file.data.name) == ("tiny", "digits")
    assert not classifier.training
    assert classifier(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    classifier[1].weight.data.zero_()  # what a test does to it is the test's own affair

def test_classifier_is_loaded_once(classifier):
    assert not classifier[1].weight.any()

def test_sweep(sweep):
    assert sweep("normal").strengths == ("0.3", "0.6")
    assert sweep().strengths == sweep("clean").strengths == ("0",)
    assert len(sweep("uniform")) == 200

class TestClaims:
    pytestmark = pytest.mark.claims(family="noise")

    @pytest.mark.claims(metric="accuracy")
    @pytest.mark.parametrize("fast", [True, False])
    def test_some(self, claim, sweep, card, fast):
        assert claim.model == card.name == claim.card.name == "tiny"
        assert (claim.metric, claim.family) == ("accuracy", "noise")
        claim.check(sweep(claim.sweep))
"""


def test_fixtures_in_a_file_of_the_users(project):
    """Catches: the module that is swept lent to tests, which can spoil the store; claims beside other parameters."""
    run = project.write("test_mine.py", MINE).run("test_mine.py", "-v")
    assert run.ret == 0
    assert "test_classifier[tiny] PASSED" in run.out
    assert "TestClaims::test_some[tiny:normal:0.3:accuracy-True] PASSED" in run.out
    assert "9 passed" in run.out
    # Each claim is counted once, however many tests hold it.
    assert run.report["counts"] | {"passed": 3, "not selected": 4, "claims": 7} == run.report["counts"]
    assert project.evidence() == project.evidence(of=project.warm)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def test_mine(sweep): sweep('normall')", "tiny has no sweep 'normall'; its card has clean, normal, uniform"),
        (
            "import pytest\n@pytest.mark.claims(famly='noise')\ndef test_mine(claim): pass",
            "takes model=..., sweep=..., strength=..., metric=..., threshold=..., family=..., clean=...; got famly",
        ),
        ("import pytest\n@pytest.mark.claims('noise')\ndef test_mine(claim): pass", "got 'noise'"),
    ],
)
def test_mistakes_in_a_file_of_the_users(project, body, said):
    """Catches: a KeyError where a name is misspelt, a marker that silently selects all."""
    run = project.fill().write("test_mine.py", f"{body}\n").run("test_mine.py")
    assert run.ret != 0
    assert said in " ".join(run.out.split())
    assert "Traceback" not in run.out
    assert "KeyError" not in run.out


THEIRS = """
import pytest

@pytest.fixture
def card():
    return "ace"

@pytest.fixture(params=["fast", "slow"])
def sweep(request):
    return request.param

@pytest.fixture
def classifier(card):
    return card

def test_card(card, classifier):
    assert card == classifier == "ace"

@pytest.mark.parametrize("claim", ["a", "b"])
def test_claim(claim, sweep):
    assert claim in "ab"

@pytest.mark.parametrize("card", [1, 2])
def test_parametrized(card):
    assert card
"""
THEIR_IDS = [
    "test_card",
    *(f"test_claim[{sweep}-{claim}]" for claim in "ab" for sweep in ("fast", "slow")),
    "test_parametrized[1]",
    "test_parametrized[2]",
]


@pytest.mark.parametrize("cards", [False, True])
def test_names_of_others(project, cards):
    """Catches: taking over any fixture or argument that is called `card` or `claim`; empty parameter sets."""
    if not cards:
        (project.root / "conftest.py").unlink()
    run = project.write("theirs/test_theirs.py", THEIRS).plain("theirs", "-v")
    assert run.ret == 0
    assert sorted(re.findall(r"::(\S+) PASSED", run.out)) == sorted(THEIR_IDS)
    assert ("robustness: models" in run.out) == cards
    assert "= robustness =" not in run.out


def test_no_tests_of_others(project):
    """Catches: exit code 5 turned into another."""
    (project.root / "conftest.py").unlink()
    run = project.write("theirs/test_theirs.py", "").plain("theirs")
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_extended_fixture(project):
    """Catches: a user's `card` that builds on ours taken for somebody else's."""
    project.fill().write(
        "conftest.py",
        (project.root / "conftest.py").read_text()
        + """
import pytest

@pytest.fixture
def card(card):
    return card.name.upper()
""",
    ).write("test_mine.py", "def test_mine(card): assert card == 'TINY'\n")
    run = project.plain("test_mine.py", "-v")
    assert run.ret == 0
    assert "test_mine[tiny] PASSED" in run.out
