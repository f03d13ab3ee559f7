"""Models whose copies are not their own: numbers stay those of plain PyTorch, and what they keep is named."""

import functools
import gc
import threading
import time
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
import torch
from test_sweep import bare_loop
from torch import nn

from robustness.classifiers.modules import restored_afterwards
from robustness.data import from_arrays
from robustness.decisions import Argmax
from robustness.perturbations import FGSM, Clean, GaussianNoise
from robustness.perturbations.gradients import gradient
from robustness.sweep import trials
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import pad_batch
from robustness.sweep.runner import directions, module_dict, run_sweep

SHARED = {}
BATCH = 50


class Body(nn.Module):
    """Features whose last layer somebody listens to, and a head that is given them by somebody else."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh())
        self.head = nn.Linear(24, 3)


class Closure(Body):
    """A hook that holds the original: a copy of the model writes there."""

    def __init__(self):
        super().__init__()
        self.seen = {}
        self.body[4].register_forward_hook(lambda module, _, output: self.seen.update(last=output))

    def forward(self, inputs):
        self.body(inputs)
        return self.head(self.seen["last"])


class Global(Body):
    """A hook that writes into a dictionary of its module's, which all copies share."""

    def __init__(self):
        super().__init__()
        self.body[4].register_forward_hook(lambda module, _, output: SHARED.update(last=output))

    def forward(self, inputs):
        self.body(inputs)
        return self.head(SHARED["last"])


class OfTheClass(Body):
    """A cache on the class: each line is one that another thread may come between."""

    def forward(self, inputs):
        OfTheClass.last = self.body(inputs)
        features = type(self).last
        return self.head(features)


class Partial(Body):
    """A function that is bound to an object outside of the tree of modules, by a closure."""

    def __init__(self):
        super().__init__()
        place = SimpleNamespace()
        self.keep = functools.partial(lambda value: setattr(place, "last", value))
        self.kept = lambda: place.last

    def forward(self, inputs):
        self.keep(self.body(inputs))
        return self.head(self.kept())


class Outside(Body):
    """A module that is no submodule, for it stands in a closure, and keeps its last images."""

    def __init__(self):
        super().__init__()
        outside = Closure()
        self.other = lambda inputs: outside(inputs)

    def forward(self, inputs):
        return self.head(self.body(inputs)) + self.other(inputs)


class ByIdentity(Body):
    """A cache by the model's identity, of its first images: copies begin with others."""

    def forward(self, inputs):
        return self.head(self.body(inputs) - _mean_of_the_first(id(self), Once(inputs)))


class Once:
    """Images that are no part of a cache's key."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return True


@functools.lru_cache(maxsize=None)  # noqa: UP033
def _mean_of_the_first(_, once):
    return once.inputs.mean()


class OfItself(Body):
    """Keeps features on itself and reads them back later, as many networks do."""

    def forward(self, inputs):
        self.last = self.body(inputs)
        time.sleep(0.001)
        self.last = self.last.relu()
        time.sleep(0.001)
        return self.head(self.last)


class Uncopied(OfItself):
    """One that refuses to be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copies")


class Local(Body):
    """What a thread keeps for itself is right at once, too."""

    place = threading.local()

    def forward(self, inputs):
        Local.place.last = self.body(inputs)
        return self.head(Local.place.last)


def images():
    return helpers.images(1200)


def plain(module):
    """The answers of plain PyTorch, one thread, batch after batch: predictions, (strengths, N)."""
    return bare_loop(module, images(), GaussianNoise(), STRENGTHS, seed=0, batch_size=500).argmax(2)


STRENGTHS = [0.1, 0.4]
KEEPING = [Closure, Global, OfTheClass, Partial, Outside]


@pytest.mark.parametrize("make", [*KEEPING, Local, OfItself, Uncopied])
def test_numbers_are_those_of_plain_pytorch_whatever_the_threads(make):
    """
    Of batches that divide neither the images nor a chunk. Catches: copies that write into the original, threads that
    read each other's features, a model that shares state and is not named whatever the number of threads.
    """
    module, swept = make().eval(), []
    for threads in (1, 2, 4):
        swept.append(run_sweep(module, images(), GaussianNoise(), STRENGTHS, batch_size=130, threads=threads))
    assert set(swept[0].status) == {"ok"}
    assert len({evidence.digest for evidence in swept}) == 1
    assert np.array_equal(swept[0].predictions, plain(module))
    named = trials.SHARES_STATE if make in KEEPING else None
    assert {evidence.provenance.get("keeps_state") for evidence in swept} == {named}


@pytest.mark.parametrize("make", KEEPING)
def test_what_copies_share_is_a_doubt_of_the_clean_sweep_with_several_threads(make):
    """Catches: a model that keeps state and is doubted only when one thread runs it."""
    evidence = run_sweep(make().eval(), images(), Clean(), [0], batch_size=BATCH, threads=4)
    assert evidence.provenance["doubts"] == [trials.KEEPS_STATE]


@pytest.mark.parametrize("make", KEEPING)
def test_copies_stay_in_step_beside_collections_of_garbage(make):
    """Catches: lines that one of two threads runs alone (Hypothesis listens to collections), so that nothing shows."""

    def listens(phase, info):
        for _ in range(20):
            info = dict(info)

    before = gc.get_threshold()
    gc.callbacks.append(listens)
    try:
        for threshold in range(20, 120, 10):
            gc.set_threshold(threshold)
            evidence = run_sweep(make().eval(), images(), Clean(), [0], batch_size=BATCH, threads=1)
            assert evidence.provenance["doubts"] == [trials.KEEPS_STATE], threshold
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(listens)
    assert gc.isenabled()


@pytest.mark.parametrize("make", [Local, lambda: nn.Sequential(*helpers.linear(images()), nn.BatchNorm1d(3))])
def test_a_healthy_model_works_in_threads_and_is_not_doubted(make):
    """Catches: one thread for models that copies change nothing of."""
    module = make().eval()
    assert tried(module, 3)[1:] == (True, "")
    assert len({id(each) for each in tried(module, 3).models}) == 3


def batches(data, perturbation=None):
    return SweepBatches(data, perturbation or Clean(), (0.0,), "default", 0, "cpu", BATCH, Argmax(), Argmax())


def tried(module, count=2, perturbation=None):
    cells = batches(images(), perturbation)
    with restored_afterwards(module_dict(module, None, None)) as lent:
        return trials.run_trials(cells, lent, count)


class Remembers(Body):
    """Answers that depend on the images before."""

    def __init__(self):
        super().__init__()
        self.before = None

    def forward(self, inputs):
        features = self.body(inputs)
        mean = features.mean() if self.before is None else self.before
        self.before = features.mean()
        return self.head(features - mean)


def test_answers_that_depend_on_the_call_before_are_named():
    assert tried(Remembers().eval()).keeps_state == trials.REMEMBERS


def test_a_cache_of_the_first_images_by_identity_is_named():
    """Catches: a copy that begins with the images which the model has just seen."""
    assert tried(ByIdentity().eval()).keeps_state == trials.SHARES_STATE


class Scaled(torch.autograd.Function):
    """A gradient that depends on what the last forward of any copy left."""

    @staticmethod
    def forward(ctx, inputs):
        SHARED["scale"] = inputs.detach().mean()
        return inputs * 1

    @staticmethod
    def backward(ctx, gradient):
        scale = SHARED["scale"]
        return gradient * scale


class SharedGradient(Body):
    def forward(self, inputs):
        return self.head(self.body(Scaled.apply(inputs)))


def test_gradients_that_are_shared_by_copies_are_named():
    """Catches: answers alone that are compared, where an attack takes gradients."""
    module = SharedGradient().eval()
    for _ in range(2):  # what was shown holds for the sweeps that follow
        assert tried(module).keeps_state == ""
        assert tried(module, perturbation=FGSM()).keeps_state == trials.SHARES_STATE


def test_a_lock_around_a_forward_holds_nobody_up(monkeypatch):
    """Catches: two threads that wait for each other, one at a line and one at the model's lock."""
    monkeypatch.setattr(trials, "LINE_TIMEOUT", 0.2)
    lock = threading.Lock()

    class Locked(Global):
        def forward(self, inputs):
            with lock:
                return super().forward(inputs)

    module = Locked().eval()
    evidence = run_sweep(module, images(), GaussianNoise(), STRENGTHS, batch_size=BATCH, threads=4)
    assert np.array_equal(evidence.predictions, plain(module))


def test_directions_are_of_the_model_itself():
    """Catches: signs that are made by copies, which nobody compared."""
    module, data = Closure().eval(), images()
    made, _ = directions(module, data, FGSM(), batch_size=BATCH, threads=4)
    for start in range(0, len(data), BATCH):
        inputs = pad_batch(data.batch(start, start + BATCH), BATCH, "cpu")
        labels = torch.from_numpy(data.labels[start : start + BATCH].copy())
        assert np.array_equal(made[start : start + BATCH], gradient(module, inputs, labels)[0].sign().numpy())


def test_images_to_try_are_others_even_where_all_are_alike():
    """Catches: a trial that compares a model with itself on the same images."""
    for pixels in (np.full((30, 2, 2), 9, np.uint8), np.zeros((1, 2, 2), np.uint8)):
        first, others = batches(from_arrays(pixels, np.arange(len(pixels)) % 2)).trial_images()
        assert first.shape == others.shape
        assert bool((first != others).flatten(1).any(1).all())
