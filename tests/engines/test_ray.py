"""Sweeps on a real cluster of two nodes, and what can go wrong there: nothing is lost, and nothing counted twice."""

import os
import shutil
import signal
import subprocess
import threading
import time
import venv
from pathlib import Path

import helpers
import numpy as np
import pytest
from ray_nodes import two_nodes, wait_for

from robustness.engines import fill, parse
from robustness.engines.cluster import connected
from robustness.errors import EngineError, SweepError
from robustness.metrics.evidence import RAISED
from robustness.util.rng import CHUNK

pytest.importorskip("ray", reason='needs a cluster: pip install "pytest-robustness[ray]"')
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and processes to the garbage collector

COUNT = 5 * CHUNK + 345
MODULE = """
import os, signal, time
from pathlib import Path
from torch import nn
from {part} import LAYERS

HERE = Path("{here}")

class Net(nn.Sequential):
    def forward(self, inputs):
        with (HERE / "passes").open("a") as stream:
            stream.write(str(os.getpid()) + " " + str(len(inputs)) + "\\n")
        noisy = bool((inputs * 255 % 1 > 1e-3).any() & (inputs * 255 % 1 < 1 - 1e-3).any())
        if noisy:
            time.sleep(float((HERE / "slow").read_text()) if (HERE / "slow").exists() else 0)
            while (HERE / "hold").exists():
                time.sleep(0.05)
            if inputs.flatten(1)[:, :2].mean() > 0.75:  # the marked chunk
                {marked}
        return super().forward(inputs)

def factory():
    return Net(*LAYERS())
"""


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture
def project(write_project, tmp_path):
    """Make a project whose model logs its passes, and does something of its own at one chunk of noisy images."""

    def make(marked="pass", shape=(4, 4), count=COUNT):
        pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
        pixels[:, 0, :2] = 100
        pixels[CHUNK : 2 * CHUNK, 0, :2] = 255
        part = f"part_{os.getpid()}_{next(helpers.NUMBERS)}"
        layers = f"from torch import nn\ndef LAYERS():\n    return [nn.Flatten(), nn.Linear({np.prod(shape)}, 3)]\n"
        text = MODULE.replace("{part}", part).replace("{here}", str(tmp_path)).replace("{marked}", marked)
        return write_project(text, pixels, **{part: layers})

    return make


def passes(made):
    """Return the process and the number of images of each pass."""
    return [line.split() for line in (made.here / "passes").read_text().splitlines()]


def sweep(cluster, workspace, wanted, device="cpu"):
    fill(workspace, parse(f"ray={cluster.address}"), wanted, device)


def chunks_of(project, name="store"):
    return list((project.here / name / "chunks").glob("??/*/*.safetensors"))


ONCE = """
                try:
                    (HERE / "died").touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_what_one_machine_decides_though_a_worker_dies(cluster, project):
    """Catches: other bits than a plain sweep's, a chunk lost or made twice with its worker, a worker not replaced."""
    made = project(marked=ONCE.strip())
    workspace = made.workspace()
    sweep(cluster, workspace, made.wanted, "auto")
    assert workspace.kind == made.workspace().device_kind
    workers = {pid for pid, _ in passes(made)} - {str(os.getpid())}
    assert len(workers) >= 2
    found = made.digests(workspace, made.wanted)
    assert str(os.getpid()) not in {pid for pid, _ in passes(made)}, "something was swept here"
    assert found == made.digests(made.workspace("plain"), made.wanted)
    assert not chunks_of(made)
    assert (made.here / "died").exists()


def test_a_node_dies(cluster, project):
    """Catches: chunks lost with their node, or what it had made counted twice."""
    made = project()
    (made.here / "slow").write_text("0.3")
    due = made.workspace()

    def kill():
        wait_for(lambda: chunks_of(made))
        cluster.remove_node(cluster.other, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    sweep(cluster, due, made.wanted[:2])
    thread.join()
    cluster.other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    (made.here / "slow").unlink()
    assert made.digests(due, made.wanted[:2]) == made.digests(made.workspace("plain"), made.wanted[:2])


def test_a_driver_dies_beside_another(cluster, project):
    """Catches: finished chunks lost with their driver, its locks left, two drivers that make one thing twice."""
    made = project()
    slow, hold = made.here / "slow", made.here / "hold"
    slow.write_text("1")
    engine, wanted, total = parse(f"ray={cluster.address},workers=1"), made.wanted[:1], COUNT // CHUNK + 1
    errors: list[str] = []

    def filled():
        try:
            fill(made.workspace(), engine, wanted, "cpu")
        except EngineError as error:
            errors.append(str(error))

    first, second = threading.Thread(target=filled), threading.Thread(target=filled)
    first.start()
    wait_for(lambda: len(chunks_of(made)) >= 2 and (made.here / "store" / "evidence").exists())
    hold.touch()  # what is left is left to the second, however long it takes to come
    try:
        (driver,) = drivers()
        second.start()
        wait_for(lambda: len(drivers()) == 2)
        os.kill(driver, signal.SIGKILL)
    finally:
        slow.unlink()
        hold.unlink()
    first.join()
    kept = len(chunks_of(made))
    second.join()
    (error,) = errors
    assert "killed by SIGKILL" in error
    assert "finished chunks are stored" in error
    swept = sum(int(count) for _, count in passes(made) if int(count) > 8)
    assert kept >= 2
    assert swept <= (2 * total + 2) * CHUNK, (
        "beside the clean pass and this one, what was under way when its driver died"
    )
    workspace = made.workspace()
    assert made.digests(workspace, wanted) == made.digests(made.workspace("plain"), wanted)


def drivers() -> list[int]:
    """Return the processes of this one that drive clusters."""
    children = (path.read_text().split() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"))
    every = (int(pid) for pids in children for pid in pids)
    return [pid for pid in every if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_an_exception_on_one_chunk(cluster, project):
    """Catches: a user's error retried without end, one that takes other cells or sweeps with it."""
    made = project(marked='raise ValueError("no luck with these")')
    workspace = made.workspace()
    sweep(cluster, workspace, made.wanted[1:2])
    evidence = workspace.evidence(made.card, "fgsm")
    assert set(evidence.status) == {f"{RAISED}ValueError: no luck with these"}
    plain = made.workspace("plain").evidence(made.card, "fgsm")
    assert evidence.status == plain.status
    assert evidence.digest == plain.digest


def test_a_worker_that_dies_each_time(cluster, project):
    """Catches: images that kill every worker tried without end, or taking the sweeps beside them with them."""
    made = project(marked="os.kill(os.getpid(), signal.SIGKILL)")
    workspace = made.workspace()
    sweep(cluster, workspace, made.wanted[:1])
    assert set(workspace.evidence(made.card).status) == {"ok"}
    with pytest.raises(SweepError, match="tiny:normal: its worker died 3 times"):
        workspace.evidence(made.card, "normal")


def test_more_images_than_the_object_store_holds(cluster, project):
    """Catches: a full store that ends the run, or images that are lost from it."""
    made = project(shape=(96, 96, 3), count=4 * CHUNK)
    wanted = made.wanted[:1]
    workspace = made.workspace()
    sweep(cluster, workspace, wanted)
    assert made.digests(workspace, wanted) == made.digests(made.workspace("plain"), wanted)


def test_an_address_where_nothing_listens():
    """Catches: minutes of silence."""
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"nothing answers at 127\.0\.0\.1:1 "), connected(parse("ray=127.0.0.1:1")):
        pass
    assert time.monotonic() - began < 10


def test_a_gpu_where_none_is(cluster, project):
    """Catches: a run that waits for a GPU for ever."""
    made = project()
    with pytest.raises(EngineError, match="the cluster has no GPU"):
        sweep(cluster, made.workspace(), made.wanted, "cuda")


def test_a_node_with_another_version(cluster, project, tmp_path, monkeypatch):
    """A node of a second environment. Catches: evidence of two versions in one."""
    monkeypatch.chdir(tmp_path)  # workers import from the driver's current folder first, where they have such a one
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    import ray

    (packages / "all.pth").write_text(str(Path(ray.__file__).parents[1]))
    shutil.copytree(helpers.ROOT / "robustness", packages / "robustness", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "robustness" / "__init__.py").write_text('"""Another one."""\n__version__ = "0.0.7"\n')
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(tmp_path / "venv/bin/python"), "-m", "ray.scripts.scripts", "start", "--block"]
    command += [f"--address={cluster.address}", "--num-cpus=1", "--object-store-memory=80000000"]
    node = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: sum(node["Alive"] for node in cluster.global_state.node_table()) == 3)
        made = project()
        with pytest.raises(EngineError, match=r"1 node\(s\) have other versions") as caught:
            sweep(cluster, made.workspace(), made.wanted)
        assert "pytest-robustness 0.0.7 (here " in str(caught.value)
    finally:
        node.terminate()
        node.wait(60)
    wait_for(lambda: sum(node["Alive"] for node in cluster.global_state.node_table()) == 2)


def test_the_cluster_is_gone(project):
    """Catches: a test run that Ray ends with its driver, in silence; finished chunks lost with the cluster."""
    from ray.cluster_utils import Cluster

    made = project()
    (made.here / "slow").write_text("1")
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})

    def end():
        wait_for(lambda: len(chunks_of(made)) >= 2)
        (made.here / "hold").touch()
        own.shutdown()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(EngineError, match="finished chunks are stored"):
        sweep(own, made.workspace(), made.wanted[:1])
    thread.join()
    assert chunks_of(made) or (made.here / "store/evidence").exists()
