"""Shards of a run become one report: the same as of the whole run, one exit code, and refused where some is amiss."""

import copy
import json

import pytest
from plugin_project import CARD

from robustness.cli import main
from robustness.plugin import run_report
from robustness.plugin.options import RunOptions
from robustness.plugin.state import RunState
from robustness.reporting import merge_shards
from robustness.reporting.merge_shards import MergeError
from robustness.reporting.report import RunReport
from robustness.reporting.run_info import RunInfo, ShardRun

NAMES = ("tiny", "other")


@pytest.fixture
def two(project):
    """The tiny project with a second model, whose evidence is the first one's: a card's name is in no key."""
    project.fill().write("models/other.toml", CARD.replace('"tiny"', '"other"'))
    return project


@pytest.fixture
def shards(two):
    """Name and report of both shards of a run in which all passed."""
    made = []
    for number in (1, 2):
        session = RunState(RunOptions(handed=(two.root / "models",), store=str(two.store), shard=f"{number}/2"))
        session.plan((f"t.py::t[{name}]", name) for name in session.claims)
        for name in session.claims:
            session.record(f"t.py::t[{name}]", "passed", {}, "")
        made.append((f"{number}.json", run_report.build_report(session, complete=True, code=0)))
    return made


def test_merged_is_the_whole_run(two, capsys, monkeypatch):
    """Catches: models or counts lost or doubled, another order, a shard that sweeps what is another's."""
    monkeypatch.chdir(two.root)
    two.edit(two.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.7, 0.99]"))
    whole = two.run("suites", "-p", "no:terminal")
    for number in (1, 2):
        two.plain("suites", f"--robustness-shard={number}/2", f"--robustness-report={number}.json", "-p", "no:terminal")
    codes = [json.loads((two.root / f"{n}.json").read_text())["run"]["exit"] for n in (1, 2)]
    assert sorted(codes) == [0, 1]
    capsys.readouterr()
    assert main.main(["merge", "2.json", "1.json", "-o", "run.json", "-o", "run.html"]) == whole.ret == 1
    assert "FAILED: 14 claims on 2 models: 13 passed, 1 failed" in capsys.readouterr().out
    merged = json.loads((two.root / "run.json").read_text())
    for document in (merged, whole.report):
        document.pop("checksum")
        about = document.pop("run")
        assert about["complete"]
    assert merged == whole.report
    assert "FAILED" in (two.root / "run.html").read_text()


@pytest.mark.parametrize(
    ("codes", "verdict", "expected"),
    [
        ((0, 0), "passed", 0), ((0, 10), "failed", 10), ((10, 1), "failed", 1), ((0, 2), "partial", 2),
        ((1, 3), "failed", 3), ((0, 0), "failed", 1), ((0, 0), "partial", 0), ((5, 10), "failed", 5),
        ((0, 11), "partial", 11), ((11, 1), "failed", 1), ((11, 10), "failed", 10), ((11, 11), "failed", 1),
    ],
)  # fmt: skip
def test_one_exit_code(codes, verdict, expected):
    """Catches: green over a red shard, a red one hidden by an undecided one, a red verdict that ends with 0."""
    shards = [ShardRun.model_construct(exit=code) for code in codes]
    report = RunReport.model_construct(verdict=verdict, run=RunInfo.model_construct(shards=shards))
    assert merge_shards.exit_code(report) == expected


def changed(shards, number, change):
    """Return the shards with one of them changed."""
    made = copy.deepcopy(shards)
    change(made[number - 1][1])
    return made


def test_what_is_not_every_shard_once_is_refused_with_every_reason(shards):
    """Catches: a verdict on part of the models, and one problem told at a time."""
    one, two = shards
    with pytest.raises(MergeError, match="shard 2 of 2 is missing"):
        merge_shards.merge([one])
    with pytest.raises(MergeError, match=r"(?s)2 problem.*shard 1 of 2 appears 2 times: 1.json, b.json.*2 is missing"):
        merge_shards.merge([one, ("b.json", one[1])])
    whole = copy.deepcopy(two[1])
    whole.run.shard = None
    with pytest.raises(MergeError, match=r"(?s)2.json: the report of a complete run.*shard 2 of 2 is missing"):
        merge_shards.merge([one, ("2.json", whole)])


def test_shards_of_unlike_runs_are_refused_with_every_difference(shards):
    """Catches: models swept under another seed, version, card or division judged as one run."""

    def unlike(report):
        report.run.versions["torch"] = "1.0"
        report.run.shard.asked["seed"] = 7
        report.run.shard.models[0].card = "0" * 64
        report.run.shard.plan = "0" * 64

    with pytest.raises(MergeError) as caught:
        merge_shards.merge(changed(shards, 2, unlike))
    said = str(caught.value)
    for difference in ("asked.seed: 0 and 7", "versions.torch: ", "models.other.card: ", "shard 2 of 2 is missing"):
        assert difference in said
    with pytest.raises(MergeError, match="plan: "):
        merge_shards.merge(changed(shards, 2, lambda report: setattr(report.run.shard, "plan", "0" * 64)))


def test_a_model_of_another_shard_is_refused(shards):
    """Catches: a red model replaced by a green one of the same name in another file."""
    stranger = shards[0][1].models
    with pytest.raises(MergeError, match=r"2.json: contains \w+, which its plan assigns to another shard"):
        merge_shards.merge(changed(shards, 2, lambda report: report.models.extend(stranger)))


def test_other_devices_are_a_notice(shards):
    """Catches: shards refused because a CI service has several kinds of machine; nothing said of it."""
    made = merge_shards.merge(changed(shards, 2, lambda report: setattr(report.models[0], "device", "cpu-other")))
    assert sum("different kinds of device" in notice for notice in made.notices) == 1
    assert "different kinds" not in str(merge_shards.merge(shards).notices)


def test_an_interrupted_shard_makes_the_whole_partial(shards):
    """Catches: a merged run that looks complete although one shard was stopped."""

    def stopped(report):
        report.run.complete, report.run.exit = False, 2

    made = merge_shards.merge(changed(shards, 1, stopped))
    assert (made.verdict, made.run.complete, merge_shards.exit_code(made)) == ("partial", False, 2)


def test_nothing_is_written_where_nothing_is_merged(shards, tmp_path, capsys):
    """Catches: a stale or half report beside a refusal, and a traceback for files that are no report."""
    for name, report in shards:
        (tmp_path / name).write_text(json.dumps(report.as_json()))
    target, torn = tmp_path / "run.json", tmp_path / "torn.json"
    torn.write_text((tmp_path / "2.json").read_text()[:500])
    edited = shards[1][1].as_json() | {"verdict": "failed"}
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    hollow = shards[1][1].as_json()
    del hollow["run"]["shard"]["of"]
    (tmp_path / "hollow.json").write_text(json.dumps(hollow))
    for second, said in (
        ("hollow.json", "run.shard.of: missing"),
        ("torn.json", "not a readable"),
        ("edited.json", "edited"),
        ("none.json", "not a readable"),
    ):
        assert main.main(["merge", str(tmp_path / "1.json"), str(tmp_path / second), "-o", str(target)]) == 2
        assert said in capsys.readouterr().err
    assert main.main(["merge", *(str(tmp_path / name) for name, _ in shards), "-o", str(tmp_path / "1.json")]) == 2
    assert not target.exists()
    assert main.main(["merge", *(str(tmp_path / name) for name, _ in shards), "-o", str(target)]) == 0
    assert json.loads(target.read_text())["verdict"] == "passed"


def test_a_red_test_of_a_card_is_in_the_verdict(two):
    """Catches: a doubt's failed test that leaves report, and so the merged run, green."""
    text = "def test_mine(card):\n    assert card.name != 'tiny', 'not\\nthis'\ndef test_strange(): assert not 1\n"
    two.write("test_mine.py", text)
    found = two.run("suites/test_clean.py", "test_mine.py", "--robustness-model=tiny")
    assert (found.ret, found.report["verdict"], found.report["run"]["exit"]) == (1, "failed", 1)
    (problem,) = found.report["run"]["problems"]
    assert problem.startswith("test_mine.py::test_mine[tiny] failed: ")
