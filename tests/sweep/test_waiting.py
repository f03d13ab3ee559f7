"""A forward that hangs is left behind, with a sentence, and the run goes on."""

import os
import threading
import time
from pathlib import Path

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness.classifiers import time_limit
from robustness.errors import ModelError
from robustness.perturbations import FGSM, Clean
from robustness.sweep.runner import run_sweep

SAID = r"has not returned after 1 seconds; does it wait for input, a download or a lock\?"


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setenv(time_limit.VARIABLE, "1")


@pytest.fixture
def hold():
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


class Hangs(nn.Linear):
    """A linear model that waits in its forward, or backward, for batches of some size."""

    def __init__(self, hold, size, backward=False):
        super().__init__(16, 3)
        self.stay, self.size, self.slow = lambda: hold.wait(), size, backward

    def forward(self, inputs):
        logits = super().forward(inputs.flatten(1))
        if self.slow and logits.requires_grad:
            logits.register_hook(lambda _: self.stay() and None)
        elif not self.slow and len(inputs) == self.size:
            self.stay()
        return logits


@pytest.mark.parametrize(("size", "backward"), [(8, False), (20, False), (20, True)])
def test_a_pass_that_hangs_is_left_behind(hold, size, backward):
    """Catches: a run that waits for ever; a thread that hangs in the pool which the next model works in."""
    images = helpers.images(128)
    with pytest.raises(ModelError, match=SAID):
        run_sweep(Hangs(hold, size, backward), images, FGSM() if backward else Clean(), [0.0], batch_size=20, threads=2)
    sound = helpers.linear(images)
    evidence = run_sweep(sound, images, Clean(), [0.0], batch_size=20, threads=2)
    with torch.no_grad():
        assert np.array_equal(evidence.predictions[0], sound(torch.from_numpy(images.batch(0, 128))).argmax(1).numpy())


@pytest.mark.parametrize(("size", "backward"), [(8, False), (20, True)])
def test_a_pass_that_comes_back_late_changes_nothing(hold, size, backward, tmp_path, monkeypatch):
    """Catches: a thread that nobody waits for, and that sets the folder of a later test, or run, back to its own."""
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match=SAID):
        run_sweep(Hangs(hold, size, backward), helpers.images(128), FGSM(), [0.0], batch_size=20, threads=2)
    late = [each for each in {*threading.enumerate()} - before if each.name.startswith(time_limit.MODEL_THREADS)]
    assert late
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATER", "here")
    hold.set()
    for each in late:
        each.join(0 if each.name.startswith("sweep") else 60)  # the threads of a pool never end
    assert Path.cwd() == tmp_path
    assert os.environ["LATER"] == "here"


def test_a_pass_that_was_left_behind_is_not_another_models(hold):
    """Catches: a sound model that is blamed for the pass of an earlier one, which still hangs."""
    with pytest.raises(ModelError, match=SAID):
        run_sweep(Hangs(hold, 20), helpers.images(60), Clean(), [0.0], batch_size=20, threads=2)
    watch, end = time_limit.Watchdog(), time.monotonic() + 2.5
    while time.monotonic() < end:
        watch.check()
        time.sleep(watch.poll_seconds)


def test_many_short_passes_are_not_taken_for_a_long_one():
    """Catches: a limit on a whole batch, whose attack takes many passes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    inputs, over = torch.rand(8, 1, 4, 4), threading.Event()
    threading.Timer(2.5, over.set).start()

    def work():
        while not over.is_set():
            model(inputs)
        return "done"

    assert time_limit.call_with_watchdog(work) == "done"


def test_what_is_raised_comes_back():
    with pytest.raises(LookupError, match="mine"):
        time_limit.call_with_watchdog(lambda: {}["mine"])


def test_a_run_goes_on(project):
    """The claims of a model that hangs have an error, at once after the first, and the process ends."""
    project.on_forward("time.sleep(3000)")
    run = project.run("suites", "--robustness-forward-seconds=1", apart=True)
    assert (run.ret, set(run.outcomes.values())) == (1, {"error"})
    assert all("has not returned after 1 seconds" in message for message in run.messages)


def test_the_limit_is_checked(project, monkeypatch):
    """Catches: a limit of zero, or none, where the option or the variable is misspelt."""
    run = project.fill().plain("suites", "--robustness-forward-seconds=never")
    assert run.ret == 4
    assert "ROBUSTNESS_FORWARD_SECONDS must be a number of seconds above 0, got 'never'" in run.err
    monkeypatch.setenv(time_limit.VARIABLE, "soon")
    with pytest.raises(ModelError, match="ROBUSTNESS_FORWARD_SECONDS must be a number of seconds above 0, got 'soon'"):
        time_limit.call_with_watchdog(lambda: 3)
