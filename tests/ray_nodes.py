"""A real cluster of two nodes for tests, and nothing left of it afterwards."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def ray_processes() -> set[int]:
    """Return the processes that are Ray's, of everybody."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if any(word in command for word in (b"raylet", b"gcs_server", b"ray::", b"ray/_private")):
            found.add(int(folder.name))
    return found


@contextmanager
def two_nodes() -> Iterator:
    """Return a head, which works too, and another node, ``other``; afterwards no process of theirs is left."""
    from ray.cluster_utils import Cluster

    before = ray_processes()
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False},
    )
    made.other = made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    yield made
    made.shutdown()
    for _ in range(100):
        if not (left := ray_processes() - before):
            break
        time.sleep(0.1)
    assert left == set()


def wait_for(what, seconds=240):
    for _ in range(seconds * 20):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")
