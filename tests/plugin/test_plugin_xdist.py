"""The plugin under pytest-xdist: who runs what, what the controller knows, and the same evidence as without."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_project import CARD, HOOK, IDS

from robustness import plugin
from robustness.cards.doubts import DOUBTS
from robustness.plugin.xdist_scheduler import SweepScheduling, claim_in_nodeid, doubt_group
from robustness.util import hardware
from robustness.workspace.store import Store

RECORDER = f"""{HOOK}
import os
from pathlib import Path
import pytest

HERE = Path(__file__).parent

def pytest_robustness_reports(config):
    with (HERE / "reporters").open("a") as stream:
        stream.write(f"{{os.getpid()}}\\n")
    return [config.rootpath / "latest.md", config.rootpath / "latest.json"]

@pytest.fixture(autouse=True)
def worker(record_property, worker_id):
    record_property("worker", worker_id)
"""


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="of xdist's workers")
def test_a_worker_of_these_tests_computes_with_the_threads_it_was_given():
    """Catches: a variable that is set when torch has been imported; threads of two workers that wait for each other."""
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_warm(project):
    """
    Catches: claims on one sweep spread over workers, a report by each worker, another order or other numbers than
    with -n 0, properties and notices lost on their way, a header for each worker.
    """
    project.fill().write("conftest.py", RECORDER).edit(project.card, ("loss = 2.0", "loss = 0.1"))
    torn = next(path for path, e in Store(project.store).entries() if e.provenance["label"] == "tiny:uniform")
    torn.write_bytes(b"")
    run = project.plain("suites", "-n2", "-v", "--junitxml=junit.xml")
    assert run.ret == 1
    report = json.loads((project.root / "latest.json").read_text())
    claims = report["models"][0]["claims"]
    assert [claim["nodeid"] for claim in claims] == IDS
    assert [claim["outcome"] for claim in claims] == ["passed", "failed"] + ["passed"] * 5
    assert (report["run"]["workers"], report["run"]["complete"]) == (2, True)
    assert report["notices"] == [f"{torn}: not an evidence file (truncated or foreign); swept again"]
    cases = project.junit()
    workers = {}
    for claim in claims:
        _, properties = cases[claim["nodeid"].partition("::")[2]]
        workers.setdefault(claim["sweep"], set()).add(properties["worker"])
        assert float(properties["value"]) == claim["numbers"]["value"]
    assert {sweep: len(names) for sweep, names in workers.items()} == {"clean": 1, "normal": 1, "uniform": 1}
    assert len(set.union(*workers.values())) == 2
    assert run.summary.count("report: latest.") == 2
    assert len(set(project.logged("reporters"))) == 1
    assert run.out.count("robustness: models tiny") == 1
    alone = project.run("suites")
    assert alone.report["models"] == report["models"]


def test_cold(project):
    """
    Catches: evidence that depends on the number of workers, a sweep or a training made twice, one that waits in
    silence. The reference was made by the library, without pytest.
    """
    run = project.in_training("time.sleep(8)").run("suites", "-n2")
    assert run.ret == 0
    assert set(run.outcomes.values()) == {"passed"}
    assert project.evidence() == project.evidence(of=project.warm)
    assert len(project.logged("trainings")) == 1
    assert len(project.logged("passes")) == len(project.logged("passes", of=project.warm.parent))
    assert "robustness: waiting for another process: training tiny (seed 0)" in run.err
    assert not list(project.store.glob("attempts/*"))


MIXED = """
import pytest

@pytest.mark.claims(sweep="clean")
@pytest.mark.parametrize("fast", [True, False])
def test_mine(claim, sweep, fast):
    if claim.metric == "accuracy":
        claim.check(sweep())

def test_other():
    pass
"""


def test_mixed(project):
    """
    Catches: claims that the controller does not know, beside other parameters or with hyphens in their names;
    skips and failures lost between processes.
    """
    far = CARD.replace('name = "digits"', 'name = "array"\nfile = "far.npz"')
    far = far.replace('split = { kind = "balanced", per_class = 20 }', "").replace('"tiny"', '"far-tiny"', 1)
    project.fill().write("models/far.toml", far).write("test_mine.py", MIXED)
    run = project.run("test_mine.py", "-n2", "--robustness-model=tiny", "--robustness-model=far-tiny")
    assert run.ret == 1
    assert "3 passed" not in run.out
    assert run.outcomes == {
        "tiny:clean:0:accuracy": "passed",
        "tiny:clean:0:loss": "not run",
        "far-tiny:clean:0:accuracy": "skipped",
        "far-tiny:clean:0:loss": "not run",
    }
    assert "the test passed without `claim.check(evidence)`" in run.messages
    assert "skipped: 1 claim of far-tiny: no far.npz in" in run.summary
    assert "failed: 2 of 4 claims did not run" in run.summary


def test_others_keep_their_scheduler(project):
    """Catches: scheduling, header or exit code of somebody's suite changed because the plugin is installed."""
    (project.root / "conftest.py").unlink()
    project.write("test_theirs.py", "import pytest\n@pytest.mark.parametrize('claim', [1, 2])\ndef test(claim): pass\n")
    run = project.plain("test_theirs.py", "-n2", "-v")
    assert run.ret == 0
    assert "scheduling tests via LoadScheduling" in run.out
    assert "robustness:" not in run.out
    assert "2 passed" in run.out


@pytest.mark.parametrize("cards", [True, False])
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal", "each"])
def test_scheduler(project, cards, dist):
    """Catches: a mode that the user chose replaced; ours where there are no cards."""
    if not cards:
        (project.root / "conftest.py").unlink()
    config = project.pytester.parseconfigure("--tx=2*popen", f"--dist={dist}")
    made = plugin.pytest_xdist_make_scheduler(config, None)
    assert (type(made).__name__ == "SweepScheduling") == (cards and dist == "load")


@pytest.mark.parametrize(("arguments", "cards", "due"), [((), True, 3), ((), False, None), (("cpu",), True, None)])
def test_workers_by_gpus(project, monkeypatch, arguments, cards, due):
    """Catches: as many workers as GPUs for a suite without models, or for one that is told to use the CPU."""
    if not cards:
        (project.root / "conftest.py").unlink()
    monkeypatch.setattr(hardware, "gpu_count", lambda: 3)
    config = project.pytester.parseconfigure(*(f"--robustness-device={device}" for device in arguments))
    assert plugin.pytest_xdist_auto_num_workers(config) == due
    monkeypatch.setattr(hardware, "gpu_count", lambda: 0)
    assert plugin.pytest_xdist_auto_num_workers(config) is None


@pytest.mark.parametrize(
    ("within", "due"),
    [
        ("a:n:0.1:recall[3]", "a:n:0.1:recall[3]"),
        ("a:n:0.1:recall[3]-fast", "a:n:0.1:recall[3]"),
        ("fast-a:n:0.1:recall[3]-x", "a:n:0.1:recall[3]"),
        ("b-a:n:0.1:recall[3]", "b-a:n:0.1:recall[3]"),
        ("a:n:0.1:recall", None),
        ("a:n:0.1:recall[33]", None),
        ("NOTSET", None),
        ("gr\\xf6\\xdfe:n:0.1:recall-fast", "größe:n:0.1:recall"),
    ],
)
@pytest.mark.parametrize(
    "around", ["suites/test_noise.py::test[{}]", "a[1]/test.py::Test::test[{}]", "t.py::t[{}]@group"]
)
def test_claim_of(within, due, around):
    """Catches: a name that is another's beginning or end, brackets elsewhere in the id."""
    known = {"a:n:0.1:recall[3]": 1, "b-a:n:0.1:recall[3]": 2, "größe:n:0.1:recall": 3}
    assert claim_in_nodeid(around.format(within), known) == due


def test_the_doubts_of_a_model_are_for_one_worker():
    """Catches: a worker that waits while another looks at the model, or one that looks at all models alone."""
    ids = [f"suites/test_doubts.py::test_doubts[{model}-{doubt}]" for model in ("mlp", "fast-mlp") for doubt in DOUBTS]
    assert len({doubt_group(nodeid) for nodeid in ids}) == 2
    assert len({doubt_group(nodeid) for nodeid in ids[: len(DOUBTS)]}) == 1
    others = ["t.py::test[mlp-1]", "t.py::test[mlp-2]", "t.py::test"]
    assert [doubt_group(nodeid) for nodeid in others] == others


def test_claim_of_without_brackets():
    assert claim_in_nodeid("suites/test_noise.py::test_noise", {"a:n:0.1:recall[3]"}) is None


class Worker:
    """As xdist's: it begins a test only when it knows the next one, or that there is none."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.collected = self.shutting_down = False
        self.queue: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        assert self.collected
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_go_on(self) -> bool:
        return not self.collected or self.shutting_down or len(self.queue) > 1


class Controller:
    """As xdist's: it tells the scheduler what its workers do, and replaces those that die."""

    def __init__(self, scheduler: SweepScheduling, tests: list[str], count: int) -> None:
        self.scheduler, self.tests = scheduler, tests
        self.workers: list[Worker] = []
        self.told: list[str] = []
        self.deaths = 0
        for _ in range(count):
            self.add()

    def add(self) -> None:
        self.workers.append(Worker(len(self.workers) + self.deaths))
        self.scheduler.add_node(self.workers[-1])

    def step(self, worker: Worker, dies: bool) -> None:
        """Let a worker do what comes next: collect, run a test or die of it, or leave."""
        if not worker.collected:
            worker.collected = True
            self.scheduler.add_node_collection(worker, self.tests)
            if self.scheduler.collection_is_completed:
                self.scheduler.schedule()
        elif not worker.queue:
            self.workers.remove(worker)
            assert worker not in self.scheduler.nodes or self.scheduler.remove_node(worker) is None
        else:
            test = worker.queue.pop(0)
            self.told.append(self.tests[test])
            if dies:
                self.deaths += 1
                self.workers.remove(worker)
                assert self.scheduler.remove_node(worker) == self.tests[test]
                self.add()
            else:
                self.scheduler.mark_test_complete(worker, test)
        if self.scheduler.tests_finished:
            for other in self.workers:
                other.shutdown()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), max_size=6), others=st.integers(0, 5), count=st.integers(1, 4))
def test_scheduling_however_workers_die(data, sizes, others, count):
    """Catches: tests lost, told twice or run again after a death; worker and controller that wait for each other."""
    sweeps = {f"m:s{i}:{j}:accuracy": f"m:s{i}" for i, size in enumerate(sizes) for j in range(size)}
    tests = [*(f"suites/test_noise.py::test[{claim}]" for claim in sweeps), *(f"t.py::t{i}" for i in range(others))]
    option = SimpleNamespace(loadscopereorder=True, tx=["popen"] * count)
    config = SimpleNamespace(getvalue=lambda name: option.tx, option=option)
    controller = Controller(SweepScheduling(config, None, sweeps), tests, count)
    while able := [worker for worker in controller.workers if worker.can_go_on]:
        dies = controller.deaths < 4 and data.draw(st.booleans())
        controller.step(data.draw(st.sampled_from(able)), dies)
    assert controller.workers == []
    assert sorted(controller.told) == sorted(tests)
