"""What makes a run red, with which sentence, and what it leaves: summary, reports, JUnit XML."""

import csv
import json
import re

import pytest
from plugin_project import CARD, IDS

from robustness.reporting.report_types import SKIPPED

MNIST = re.sub(r"\[data\].*?\n\n", '[data]\nname = "mnist"\n\n', CARD, flags=re.DOTALL).replace('"tiny"', '"far"', 1)
ALL = "suites"


def test_one_failed(project):
    """Catches: a green run, a message without one of its numbers, a shortfall that is one image off."""
    project.fill().edit(project.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.7, 0.95]"))
    run = project.run(ALL)
    assert run.ret == 1
    assert list(run.outcomes.values()).count("failed") == 1
    failed = next(claim for claim in run.claims if claim["outcome"] == "failed")
    right, n = failed["numbers"]["successes"], failed["numbers"]["n"]
    assert (failed["id"], n) == ("tiny:normal:0.6:accuracy", 200)
    low, high = (f"{failed['numbers'][end]:.3f}" for end in ("low", "high"))
    sentence = (
        f"tiny under normal at 0.6: accuracy is {right / n:.4f} [{low}, {high}] ({right} of 200 images, 95 % Wilson), "
        f"but its card claims at least 0.95: {190 - right} images short"
    )
    assert failed["message"] == sentence
    assert sentence in run.out
    assert "robustness/plugin/" not in run.out  # no traceback through the plugin
    assert "FAILED: 7 claims on 1 model: 6 passed, 1 failed" in run.summary


def test_upper_bound_failed(project):
    """Catches: a bound met in the wrong direction, a shortfall in images where none are counted."""
    run = project.fill().edit(project.card, ("loss = 2.0", "loss = 0.1")).run(ALL, "-k", "loss")
    assert run.ret == 1
    assert re.search(
        r"loss is 0\.\d{4} \[.*\] \(n = 200 images, .*\), but its card claims at most 0\.1$", run.messages[0]
    )


@pytest.mark.parametrize(
    ("old", "new", "metric", "said"),
    [
        ("accuracy = 0.8", "accuracy = 0.1", "accuracy", ("at least 0.1", "reach 0.1 on", "raise")),
        ("loss = 2.0", "loss = 2.31", "loss", ("at most 2.31", "reach 2.303 on", "lower")),
    ],
)
def test_vacuous(project, old, new, metric, said):
    """Catches: a claim at what a constant classifier gets called passed; advice in the wrong direction."""
    run = project.fill().edit(project.card, (old, new)).run(ALL, "-k", "clean")
    assert run.ret == 1
    assert run.outcomes[f"tiny:clean:0:{metric}"] == "vacuous"
    bound, floor, advice = said
    assert (
        f"tiny under clean at 0: {metric} of {bound} cannot fail: constant classifiers and random guesses {floor} "
        f'these 200 images; {advice} the threshold, or write "no claim possible"'
    ) in run.out
    assert "1 vacuous" in run.summary


def test_nothing_in_the_denominator(project):
    """Catches: 0/0 shown as 0 or 1, passed, or vacuous with a floor of NaN."""
    project.fill().edit(project.card, ('"recall[3]" = 0.5', '"precision[3]" = 0.5'))
    project.edit(project.net, ("        return logits", "        return logits - 1e3 * (torch.arange(10) == 3)"))
    run = project.run(ALL, "-k", "precision[3]")
    assert (run.ret, run.outcomes) == (1, {"tiny:uniform:0.5:precision[3]": "failed"})
    assert re.search(r"precision\[3\] is — \(.*no.*\), but its card claims at least 0.5", run.messages[0])
    assert run.claims[0]["numbers"]["value"] is None


def test_a_class_that_the_data_do_not_have(project):
    """Catches: a traceback where a sentence would do."""
    run = project.fill().edit(project.card, ("recall[3]", "recall[12]")).run(ALL, "-k", "uniform")
    assert run.ret == 1
    assert run.outcomes["tiny:uniform:0.5:recall[12]"] == "error"
    assert "Traceback" not in run.out
    assert "recall[12]" in run.messages[1]
    assert "\n" not in run.messages[1]


def test_non_finite_logits(project):
    """Catches: a NaN counted as an answer; other strengths lost with the one that failed."""
    project.on_forward(
        "bad = inputs[:, 0, :, 0].mean(1) > 0.38; logits[bad] = float('nan')\n"
        "        [log('bad') for _ in range(int(bad.sum()))]"
    )
    run = project.run(ALL, "-k", "normal")
    assert run.ret == 1
    assert run.outcomes["tiny:normal:0.6:accuracy"] == "error"
    assert run.outcomes["tiny:normal:0.3:accuracy"] == "passed"
    bad = len(project.logged("bad"))
    assert 0 < bad < 200
    said = (
        f"tiny under normal at 0.6: the cell has no numbers: non-finite logits for {bad} of 200 images ({bad / 2:.1f}%)"
    )
    assert said in run.out
    assert run.messages[-1] == said


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize("why", ["deselected", "no card", "no hook", "skipped", "broken", "a name borne twice"])
def test_nothing_is_green_by_absence(project, why, workers):
    """Catches: skipped tests called a green run; a controller that knows nothing of what its workers were asked for."""
    arguments, said = [], "no card is selected; name models with --robustness-model"
    if why == "deselected":
        arguments, said = ["-k", "nothing"], "no claim ran"
    elif why == "skipped":
        project.write("models/far.toml", MNIST)
        arguments, said = ["--robustness-model=far"], f"all {len(IDS)} claims were skipped"
    elif why == "broken":
        project.edit(project.card, ("accuracy = 0.8", "acuracy = 0.8"))
        arguments, said = ["--no-header"], "did you mean 'accuracy'?"
    elif why == "a name borne twice":
        project.write("models/twin.toml", CARD)
        arguments, said = ["--no-header"], "name = 'tiny' is also the name of"
    else:
        project.card.unlink()
        if why == "no hook":
            (project.root / "conftest.py").unlink()
    run = project.run(ALL, workers, "-rN", *arguments)
    if workers == "-n0" and "--no-header" in arguments:
        assert run.ret == pytest.ExitCode.INTERRUPTED
    else:
        assert (run.ret, run.summary.count(said)) == (1, 1)
    assert run.out.count(said) == 1
    assert run.report == {} or why == "skipped"


def test_broken_card(project):
    """Catches: one error a module and a worker, an exit code of 0, an error without the place of the mistake."""
    project.write("test_mine.py", "def test_mine(): pass\n").edit(project.card, ("accuracy = 0.8", "acuracy = 0.8"))
    run = project.plain(ALL, "-rN", "--no-header", "test_mine.py")
    assert run.ret not in (0, 5)
    assert f"{project.card}: 1 problem(s) in this card" in run.out
    assert "During handling" not in run.out
    # Who does not ask for the suites is not stopped by it.
    assert project.plain("test_mine.py").ret == 0


def test_missing_data_skip(project):
    """Catches: exit code 0 although claims were not tried; a skip that does not say how to get the data."""
    project.fill().write("models/far.toml", MNIST)
    run = project.run(ALL, "--robustness-model=far", "--robustness-model=tiny")
    assert run.ret == run.report["run"]["exit"] == SKIPPED
    assert "exit code 11: nothing failed, but 7 claims skipped" in run.summary
    assert list(run.outcomes.values()) == ["skipped"] * 7 + ["passed"] * 7
    assert run.report["verdict"] == "partial"
    counts = {model["name"]: (model["passed"], model["skipped"]) for model in run.report["counts"]["models"]}
    assert counts == {"far": (0, 7), "tiny": (7, 0)}
    reason = f"get it with: robustness data mnist --root {project.root / 'data'}"
    assert re.search(rf"skipped: 7 claims of far: .*{reason}", run.summary)
    assert re.search(rf"SKIPPED.*{reason}", project.run(ALL, "--robustness-model=far", "-rs").out.replace("\n", " "))
    strict = project.run(ALL, "--robustness-model=far", "--robustness-model=tiny", "--robustness-strict")
    assert strict.ret == 1
    assert list(strict.outcomes.values()) == ["error"] * 7 + ["passed"] * 7
    assert "robustness data mnist --root" in strict.messages[0]


def test_a_test_that_checks_nothing(project):
    """Catches: a claim passed because its test passed."""
    project.fill().write("test_mine.py", "def test_mine(claim, sweep): sweep(claim.sweep)\n")
    run = project.run("test_mine.py", "-k", "clean")
    assert run.ret == 1
    assert "2 passed" in run.out
    assert set(run.outcomes.values()) == {"not run"}
    assert "the test passed without `claim.check(evidence)`" in run.messages[0]
    assert "failed: 2 of 2 claims did not run" in run.summary


CHECK, FAIL = "claim.check(sweep())", "assert False, 'no'"
LATE = "import pytest\n@pytest.fixture(autouse=True)\ndef after():\n    yield\n    raise RuntimeError('late')\n"


@pytest.mark.parametrize(
    ("bodies", "conftest"),
    [((f"{CHECK}\n    {FAIL}",), ""), ((CHECK,), LATE), ((CHECK, FAIL), ""), ((FAIL, CHECK), "")],
    ids=["after its check", "teardown", "second of two tests", "first of two tests"],
)
def test_a_failure_beside_a_passed_check(project, bodies, conftest):
    """Catches: what a check said first, or the last of several tests of one claim, taken for the outcome."""
    tests = "".join(f"def test_{i}(claim, sweep):\n    {body}\n" for i, body in enumerate(bodies))
    head = "import pytest\npytestmark = pytest.mark.claims(sweep='clean', metric='loss')\n"
    project.fill().write("mine/test_mine.py", head + tests).write("mine/conftest.py", conftest)
    run = project.run("mine")
    assert (run.ret, list(run.outcomes.values())) == (1, ["error"])


def test_stopped_early(project):
    """Catches: claims forgotten that `-x` left, a report that looks complete."""
    project.fill().edit(project.card, ("accuracy = 0.8", "accuracy = 0.99"))
    run = project.run(ALL, "-x")
    assert run.ret != 0
    assert list(run.outcomes.values()) == ["failed"] + ["not run"] * 6
    assert "6 of 7 claims did not run" in run.summary


def test_missing_weights(project):
    """Catches: a traceback."""
    card = CARD.replace('[recipe]\ncallable = "tiny_net:fit"\n', "").replace('net"\n', 'net"\nweights = "gone.pt"\n', 1)
    run = project.write("models/tiny.toml", card).run(ALL, "-k", "clean")
    assert run.ret == 1
    assert "model.weights = 'gone.pt': there is no such file" in run.out
    assert "Traceback" not in run.out


# ------------------------------------------------------------------ what a run leaves


def test_report_files(project):
    """Catches: an option that counts once, reports of red runs lost, temporary files left."""
    project.fill().edit(project.card, ("accuracy = 0.8", "accuracy = 0.99"))
    names = [f"out/report.{suffix}" for suffix in ("md", "json", "csv", "tex")]
    run = project.plain(ALL, *(f"--robustness-report={name}" for name in names))
    assert run.ret == 1
    for name in names:
        assert f"report: {name}" in run.summary
    markdown, text, rows, latex = ((project.root / name).read_text() for name in names)
    assert json.loads(text)["counts"]["failed"] == 1
    assert "tiny" in markdown
    assert r"\begin{tabular}" in latex
    assert {row["outcome"] for row in csv.DictReader(rows.splitlines())} >= {"passed", "failed"}
    assert not list((project.root / "out").glob(".*"))


def test_report_hook(project):
    """Catches: the hook not asked, or asked although the command line names files."""
    project.fill().write(
        "conftest.py",
        (project.root / "conftest.py").read_text()
        + """
def pytest_robustness_reports(config):
    return [config.rootpath / "latest.md", config.rootpath / "latest.json"]
""",
    )
    assert project.run(ALL).ret == 0
    assert not (project.root / "latest.json").exists()
    run = project.plain(ALL, "-k", "loss")
    assert "report: latest.md" in run.summary
    assert json.loads((project.root / "latest.json").read_text())["counts"]["passed"] == 1
    # A run that is not of the suites leaves the last one's report alone.
    project.write("test_mine.py", "def test_mine(card): pass\n")
    assert project.plain("test_mine.py").ret == 0
    assert json.loads((project.root / "latest.json").read_text())["counts"]["passed"] == 1


def test_report_that_cannot_be_written(project):
    """Catches: an internal error at the end, a green exit code."""
    project.fill().write("file", "")
    run = project.plain(ALL, "--robustness-report=file/report.md")
    assert run.ret not in (0, pytest.ExitCode.INTERNAL_ERROR)
    assert "report" in run.out + run.err
    assert "Traceback" not in run.out


def test_junit_carries_the_numbers(project):
    """Catches: numbers lost between the test and the XML; a need for the terminal reporter."""
    project.fill().edit(project.card, ("loss = 2.0", "loss = 0.1"))
    run = project.run(ALL, "--junitxml=junit.xml", "-p", "no:terminal")
    cases = project.junit()
    ran = [name for name, (fate, _) in cases.items() if fate != "skipped"]  # the timing suite is skipped as one
    assert ran == [nodeid.partition("::")[2] for nodeid in IDS]
    for claim in run.claims:
        fate, properties = cases[claim["nodeid"].partition("::")[2]]
        assert fate == {"passed": "passed", "failed": "failure"}[claim["outcome"]]
        assert properties["outcome"] == claim["outcome"]
        assert properties["message"] == claim["message"]
        for name in ("value", "low", "high", "n"):
            assert float(properties[name]) == claim["numbers"][name]
        assert float(properties["threshold"]) == claim["threshold"]
        assert "None" not in properties.values()


@pytest.mark.parametrize(
    "code", ["import pytest; pytest.skip('no')", "import unittest; raise unittest.SkipTest('no')", "sys.exit(0)"]
)
@pytest.mark.parametrize("where", ["forward", "factory"])
def test_a_model_that_skips_is_an_error(project, code, where):
    """Catches: a model whose claims count as skipped because its own code says so."""
    if where == "forward":
        project.on_forward(code)
    else:
        project.edit(project.net, ('log("modules")', code))
    run = project.run("suites/test_clean.py")
    assert run.ret == 1
    assert set(run.outcomes.values()) == {"error"} if where == "forward" else "skipped" not in run.outcomes.values()
    assert all("raised" in message or "sys.exit" in message for message in run.messages)
