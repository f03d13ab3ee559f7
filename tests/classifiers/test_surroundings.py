"""What a model changes in its process is set back, and the next model is not blamed."""

import os
import sys
import threading
import warnings

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.classifiers import build, process_state
from robustness.classifiers.modules import restored_afterwards
from robustness.perturbations import FGSM, GaussianNoise
from robustness.sweep.runner import run_sweep

CHANGES = {
    "torch.set_default_dtype(torch.float64)": "torch's default type",
    "os.chdir(os.sep)": "the current folder",
    "os.umask(0o077)": "the umask",
    "os.environ['HELLO'] = '1'": "environment variables",
    "torch.use_deterministic_algorithms(True)": "torch's deterministic algorithms",
    "import logging; logging.basicConfig(level=1, force=True)": "logging",
    "sys.setrecursionlimit(2000)": "the recursion limit",
    "import gc; gc.disable()": "garbage collection",
}
OF_A_FORWARD = {
    "sys.stdout = open(os.devnull, 'w')": "sys.stdout or sys.stderr",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "torch's number of threads",
    "torch.set_grad_enabled(False)": "torch's gradient mode",
    "torch.set_default_device('meta')": "torch's default device",
    "np.seterr(all='raise')": "NumPy's error handling",
    "torch.set_flush_denormal(True)": "how denormal numbers are computed",
}


def seen():
    return [part.get() for part in process_state.PROCESS_STATE]


@pytest.mark.parametrize("code", CHANGES)
@pytest.mark.parametrize("where", ["import", "factory"])
def test_what_a_factory_changes_is_set_back_and_named(tmp_path, own_path, monkeypatch, code, where):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    begin = "import os, sys, torch\n"
    source = helpers.MODULE.replace("    return nn.Sequential", f"    {code}\n    return nn.Sequential", 1)
    source = begin + (source if where == "factory" else f"{code}\n{helpers.MODULE}")
    card, before, notices = cards.load(helpers.project(tmp_path, source)), seen(), list[str]()
    build.build_module(card, notices)
    assert seen() == before
    said = [f"changed {CHANGES[code]} of the whole process" in notice for notice in notices]
    assert said == ([] if CHANGES[code] == process_state.ENVIRONMENT else [True])


@pytest.mark.parametrize("code", [*CHANGES, *OF_A_FORWARD])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_forward_changes_is_set_back(code):
    """Catches: another model's numbers, or its status, after one that changes what all share."""

    class Changes(nn.Linear):
        def forward(self, inputs):
            inputs = inputs.flatten(1)
            exec(code, {"os": os, "sys": sys, "torch": torch, "np": np})
            return inputs @ self.weight.T

    images = helpers.images(60)
    sound = helpers.linear(images)
    due = [run_sweep(sound, images, attack, [0.1], batch_size=20, threads=2) for attack in (GaussianNoise(), FGSM())]
    before = seen()
    with process_state.restore_state() as changed, restored_afterwards(Changes(16, 3)) as lent:
        lent(torch.rand(2, 1, 4, 4))
        told = [
            part.name for part, value in zip(process_state.PROCESS_STATE, before, strict=True) if part.get() != value
        ]
    assert told == [(CHANGES | OF_A_FORWARD)[code]]
    assert changed == []  # what is lent is given back with all around it
    assert seen() == before
    for attack, evidence in zip((GaussianNoise(), FGSM()), due, strict=True):
        run_sweep(Changes(16, 3), images, attack, [0.1], batch_size=20, threads=2)
        assert seen() == before
        again = run_sweep(sound, images, attack, [0.1], batch_size=20, threads=2)
        assert again.status == ("ok",)
        assert np.array_equal(again.loss, evidence.loss)


def test_warning_filters_are_set_back():
    with restored_afterwards(nn.Identity()):
        warnings.simplefilter("ignore")
    with pytest.raises(UserWarning, match="still an error"):
        warnings.warn("still an error", stacklevel=1)


def test_threads_that_a_factory_leaves_are_named(tmp_path, own_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(threading, "ends", ends := threading.Event(), raising=False)
    start = "threading.Thread(target=threading.ends.wait, name='left').start()"
    source = "import threading\n" + helpers.MODULE.replace("    return nn", f"    {start}\n    return nn", 1)
    notices = list[str]()
    try:
        build.build_module(cards.load(helpers.project(tmp_path, source)), notices)
    finally:
        ends.set()
    assert any("left 1 thread(s) running (left)" in notice for notice in notices)
