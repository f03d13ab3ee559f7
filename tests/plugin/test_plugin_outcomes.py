"""What makes a run red, with which sentence, and what it leaves: summary, reports, JUnit XML."""

import csv
import json
import re

import pytest
from plugin_project import CARD, IDS

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


def test_all_deselected(project):
    """Catches: exit code 5 without a reason, or 0."""
    run = project.fill().run(ALL, "-k", "nothing")
    assert run.ret == 1
    assert "failed: no claim ran" in run.summary
    assert run.report == {}


@pytest.mark.parametrize("hook", [True, False])
def test_no_card(project, hook):
    """Catches: two skipped tests called a green run."""
    project.card.unlink()
    if not hook:
        (project.root / "conftest.py").unlink()
    run = project.run(ALL)
    assert run.ret == 1
    assert "failed: no card is selected; name models with --robustness-model" in run.summary


def test_a_card_without_claims(project):
    """Catches: a card that neither sweeps nor claims called green; one that sweeps, red, or called passed."""
    project.edit(project.card, (CARD[CARD.index("[claims.clean]") :], ""))
    run = project.run(ALL)
    assert (run.ret, run.report["verdict"]) == (0, "measured")
    project.edit(project.card, (CARD[CARD.index("[sweeps.normal]") : CARD.index("[claims.clean]")], ""))
    run = project.run(ALL)
    assert run.ret == 1
    assert "failed: no claim ran. The cards of tiny have no claims and no sweeps" in run.summary


def test_broken_card(project):
    """Catches: one error a module and a worker, an exit code of 0, an error without the place of the mistake."""
    project.write("test_mine.py", "def test_mine(): pass\n").edit(project.card, ("accuracy = 0.8", "acuracy = 0.8"))
    run = project.plain(ALL, "-rN", "--no-header", "test_mine.py")
    assert run.ret not in (0, 5)
    assert run.out.count("did you mean 'accuracy'?") == 1
    assert f"{project.card}: 1 problem(s) in this card" in run.out
    assert "During handling" not in run.out
    # Who does not ask for the suites is not stopped by it.
    assert project.plain("test_mine.py").ret == 0


def test_a_name_borne_twice(project):
    project.write("models/twin.toml", CARD)
    run = project.plain(ALL, "-rN", "--no-header")
    assert run.ret not in (0, 5)
    assert run.out.count("name = 'tiny' is also the name of") == 1


def test_missing_data_skip(project):
    """Catches: a skip that does not say how to get the data; one count for all models."""
    project.fill().write("models/far.toml", MNIST)
    run = project.run(ALL, "--robustness-model=far", "--robustness-model=tiny")
    assert run.ret == 0
    assert list(run.outcomes.values()) == ["skipped"] * 7 + ["passed"] * 7
    assert run.report["verdict"] == "partial"
    counts = {model["name"]: (model["passed"], model["skipped"]) for model in run.report["counts"]["models"]}
    assert counts == {"far": (0, 7), "tiny": (7, 0)}
    reason = f"get it with: robustness data mnist --root {project.root / 'data'}"
    assert re.search(rf"far: 7 claims skipped: .*{reason}", run.summary)
    assert re.search(rf"SKIPPED.*{reason}", project.run(ALL, "--robustness-model=far", "-rs").out.replace("\n", " "))


def test_every_claim_skipped(project):
    run = project.write("models/far.toml", MNIST).run(ALL, "--robustness-model=far")
    assert run.ret == 1
    assert "failed: all 7 claims were skipped" in run.summary


def test_strict(project):
    """Catches: missing data skipped where they may not be."""
    run = project.fill().write("models/far.toml", MNIST)
    run = project.run(ALL, "--robustness-model=far", "--robustness-model=tiny", "--robustness-strict")
    assert run.ret == 1
    assert list(run.outcomes.values()) == ["error"] * 7 + ["passed"] * 7
    assert "robustness data mnist --root" in run.messages[0]


def test_a_test_that_checks_nothing(project):
    """Catches: a claim passed because its test passed."""
    project.fill().write("test_mine.py", "def test_mine(claim, sweep): sweep(claim.sweep)\n")
    run = project.run("test_mine.py", "-k", "clean")
    assert run.ret == 1
    assert "2 passed" in run.out
    assert set(run.outcomes.values()) == {"not run"}
    assert "the test passed without `claim.check(evidence)`" in run.messages[0]
    assert "failed: 2 of 2 claims did not run" in run.summary


def test_the_worst_of_several_tests_counts(project):
    """Catches: the last test's word on a claim, so that order decides."""
    body = "import pytest\npytestmark = pytest.mark.claims(sweep='clean')\n"
    passes, fails = "claim.check(sweep())", "assert False, 'no'"
    for name, first, second in (("a", fails, passes), ("b", passes, fails)):
        text = f"{body}def test_1(claim, sweep): {first}\ndef test_2(claim, sweep): {second}\n"
        project.write(f"test_{name}.py", text)
    project.fill()
    for name in "ab":
        run = project.run(f"test_{name}.py")
        assert (run.ret, set(run.outcomes.values())) == (1, {"error"})


def test_a_test_that_fails_after_its_check(project):
    """Catches: what the claim said before taken for the test's outcome."""
    body = "import pytest\n@pytest.mark.claims(sweep='clean', metric='loss')\n"
    project.fill().write("test_mine.py", body + "def test_mine(claim, sweep):\n claim.check(sweep())\n assert 0\n")
    run = project.run("test_mine.py")
    assert (run.ret, list(run.outcomes.values())) == (1, ["error"])


def test_teardown_that_fails(project):
    """Catches: a test counted as passed whose teardown failed."""
    project.fill().write(
        "suites/conftest.py",
        """
import pytest

@pytest.fixture(autouse=True)
def after():
    yield
    raise RuntimeError("late")
""",
    )
    run = project.run(ALL, "-k", "loss")
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
    """Catches: numbers lost between the test and the XML."""
    project.fill().edit(project.card, ("loss = 2.0", "loss = 0.1"))
    run = project.run(ALL, "--junitxml=junit.xml")
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


def test_quiet(project):
    """Catches: tables where `-q` asks for few lines."""
    run = project.fill().run(ALL, "-q")
    assert "accuracy [95 %]" not in run.out
    assert "passed: all 7 claims on 1 model" in run.summary


def test_no_terminal(project):
    """Catches: a need for the terminal reporter."""
    run = project.fill().run(ALL, "-p", "no:terminal")
    assert (run.ret, len(run.outcomes)) == (0, 7)


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
