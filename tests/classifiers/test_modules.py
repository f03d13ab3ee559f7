"""Somebody else's module: lent, copied and given back as it came."""

import contextlib
import copy

import helpers
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from robustness.classifiers.modules import channels_last, replicas, restored_afterwards, state_hash


class Marked(nn.Module):
    """A module on which everything may change that can."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
        self.frozen = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("fleeting", torch.zeros(2), persistent=False)
        self.register_buffer("none", None)
        self.kept = ["as it came"]

    def forward(self, inputs):
        self.calls = self.calls + 1  # another tensor
        self.fleeting += 1  # the same one
        self.hidden = self.first(inputs)
        self.kept = "changed"
        return self.last(self.frozen(self.hidden))


def marked():
    """Half frozen, with gradients, in training."""
    module = Marked().train()
    module.frozen.eval()
    for parameter in module.frozen.parameters():
        parameter.requires_grad_(False)
    module(torch.rand(8, 4)).sum().backward()
    del module.hidden
    module.kept = ["as it came"]
    return module


def picture(module):
    """Everything that can be seen of a module, values and identities."""
    tensors = [*module.parameters(), *module.buffers()]
    return {
        "modes": [m.training for m in module.modules()],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "kept": module.kept,
        "identities": [id(t) for t in tensors],
        "places": [t.data_ptr() for t in tensors],
        "devices": [t.device for t in tensors],
        "values": [t.detach().clone() for t in tensors],
        "flags": [t.requires_grad for t in tensors],
        "gradients": [(id(p.grad), None if p.grad is None else p.grad.clone()) for p in module.parameters()],
        "hooks": [len(m._forward_hooks) for m in module.modules()],
    }


def assert_same(before, after):
    for key, value in before.items():
        if key == "values":
            assert all(torch.equal(a, b) for a, b in zip(value, after[key], strict=True))
        elif key == "gradients":
            for (identity, gradient), (other, now) in zip(value, after[key], strict=True):
                assert identity == other
                assert gradient is None or torch.equal(gradient, now)
        else:
            assert after[key] == value, key


class Stubborn(Marked):
    """A module that cannot be put in evaluation mode."""

    def train(self, mode=True):
        super().train(mode)
        if not mode:
            raise KeyError("always in training")
        return self


@pytest.mark.parametrize("way", ["returns", "raises", "cannot be put in evaluation mode"])
def test_a_module_leaves_as_it_came(way):
    module = Stubborn() if way.startswith("cannot") else marked()
    before = picture(module)
    with contextlib.nullcontext() if way == "returns" else pytest.raises(KeyError), restored_afterwards(module) as lent:
        assert lent is module
        assert not any(m.training for m in lent.modules())
        assert not any(p.requires_grad for p in lent.parameters())
        lent.train()  # as a perturbation might, against the rules
        lent.requires_grad_(True)
        lent(torch.rand(8, 4)).sum().backward()
        lent.last.bias.grad = torch.ones(2)
        lent.register_forward_hook(lambda *_: None)
        lent.first[1] = nn.Identity()
        if way == "raises":
            raise KeyError("in the middle")
    assert_same(before, picture(module))


def test_replicas_share_parameters_and_nothing_else():
    module = marked()
    one, other = replicas(module, 2)
    assert len({id(m) for m in (module, one, other)}) == 3
    for name, parameter in module.named_parameters():
        assert one.get_parameter(name) is other.get_parameter(name) is parameter
    for name, buffer in module.named_buffers():
        assert len({id(buffer), id(one.get_buffer(name)), id(other.get_buffer(name))}) == 3
    one(torch.rand(3, 4))
    assert (one.calls, other.calls) == (2, 1)
    assert one.kept != other.kept == module.kept is not other.kept
    assert replicas(module, 1)[0] is not module, "with one thread as well nothing is left on the classifier"


def test_a_module_that_cannot_be_copied_is_given_alone():
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there can be only one")

    module = nn.Sequential(Single(2, 2))
    assert replicas(module, 3) == [module]


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(4, 2),
        parametrizations.weight_norm(nn.Linear(4, 2)),
        parametrizations.spectral_norm(nn.Linear(4, 2)),
    ],
    ids=["lstm", "weight norm", "spectral norm"],
)
def test_modules_that_keep_their_weights_in_their_own_way(module):
    inputs = torch.rand(3, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad(), restored_afterwards(module) as lent:
        outputs = [m(inputs) for m in (lent, *replicas(lent, 2))]
    outputs = [o[0] if isinstance(o, tuple) else o for o in outputs]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_state_is_every_parameter_and_buffer_with_name_and_shape():
    module = marked()
    first = state_hash(module)
    assert state_hash(copy.deepcopy(module)) == first
    for tensor in [*module.parameters(), *module.buffers()]:
        with torch.no_grad():
            value = tensor.clone()
            tensor.view(-1)[0] += 1
            assert state_hash(module) != first
            tensor.copy_(value)
    assert state_hash(module) == first
    others = [{"a": torch.zeros(4)}, {"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}]
    assert len({state_hash(nn.ParameterDict(other)) for other in others}) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: a module moves there and back")
def test_a_module_comes_back_from_another_device():
    from robustness.perturbations import GaussianNoise
    from robustness.sweep.runner import run_sweep

    images = helpers.images(20)
    module = helpers.linear(images)
    before = [(p.data_ptr(), p.device) for p in module.parameters()]
    on_cpu, on_gpu = (
        run_sweep(module, images, GaussianNoise(), [0.1, 0.5], device=device) for device in ("cpu", "cuda")
    )
    assert [(p.data_ptr(), p.device) for p in module.parameters()] == before
    assert (abs(on_cpu.loss - on_gpu.loss) < 1e-4).all()


def test_convolutions_on_small_maps_keep_their_layout():
    """Catches: a small map laid out channels-last (twice as slow), other outputs, and a layout or hook left behind."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(4), nn.Conv2d(16, 8, 3, padding=1), nn.Flatten()
    )
    inputs = torch.rand(4, 3, 16, 16)
    before = module(inputs)
    seen = []
    module[2].register_forward_hook(lambda _, given, output: seen.append(output.is_contiguous()))
    with restored_afterwards(module) as lent:
        assert channels_last(lent, lambda: lent(inputs) is not None)
        seen.clear()
        assert torch.allclose(lent(inputs), before, atol=1e-5)
        assert seen == [True]
        assert lent[0].weight.is_contiguous(memory_format=torch.channels_last)
        assert not lent[0].weight.is_contiguous()
        assert lent[2].weight.is_contiguous()
    assert module[0].weight.is_contiguous()
    assert not any(each._forward_pre_hooks for each in module)


def test_a_model_that_cannot_be_laid_out_is_left_as_it_was():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, inputs):
            return self.convolution(inputs).view(len(inputs), -1)

    module, inputs = Viewing(), torch.rand(2, 3, 12, 12)

    def works():
        try:
            return module(inputs) is not None
        except RuntimeError:
            return False

    assert not channels_last(module, works)
    assert works()
    assert module.convolution.weight.is_contiguous()


TABLE = {}


class Tabled(nn.Module):
    """A model that makes a table in its first pass, and keeps it somewhere."""

    def __init__(self, place):
        super().__init__()
        self.head, self.place, self.table, self.nested = nn.Linear(16, 3), place, None, {"tables": []}
        closed = []

        def in_closure(make):
            closed or closed.append(make())
            return closed[0]

        self.in_closure = in_closure

    def positions(self):
        def make():
            return torch.arange(16, dtype=torch.float32).cos()

        if self.place == "attribute":
            self.table = make() if self.table is None else self.table
            return self.table
        if self.place == "nested":
            self.nested["tables"] or self.nested["tables"].append(make())
            return self.nested["tables"][0]
        return self.in_closure(make) if self.place == "closure" else TABLE.setdefault("positions", make())

    def forward(self, inputs):
        return self.head(inputs.flatten(1).tanh() * self.positions())


@pytest.mark.parametrize("inference", [False, True], ids=["", "called in inference mode"])
@pytest.mark.parametrize("place", ["attribute", "nested", "closure", "global"])
def test_a_table_that_is_made_in_the_first_pass_can_be_differentiated_through(place, inference):
    """Catches: inference mode around a model, whose tables no gradient may pass for ever after."""
    from robustness.doubts.checks import run_checks
    from robustness.perturbations import FGSM, Clean
    from robustness.perturbations.gradients import gradient
    from robustness.sweep.runner import run_sweep

    TABLE.clear()
    images = helpers.images(40)
    inputs, labels = torch.from_numpy(images.batch(0, 40)), torch.from_numpy(images.labels.copy())
    module = Tabled(place).eval()
    with torch.inference_mode(inference):
        run_checks(module, images, attacked=False)
        clean = run_sweep(module, images, Clean(), [0.0], batch_size=20)
        evidence = run_sweep(module, images, FGSM(), [0.1], batch_size=20)
    assert clean.status == evidence.status == ("ok",)
    signs = gradient(module, inputs, labels)[0].sign()
    due = (inputs + 0.1 * signs).clamp(0, 1)
    assert np.array_equal(evidence.predictions[0], module(due).argmax(1).numpy())


def test_nothing_here_runs_models_in_inference_mode():
    """Catches: a new place that does, where a table that is made in it poisons what comes later."""
    sources = (helpers.ROOT / "robustness").rglob("*.py")
    assert [file.name for file in sources if "inference_mode()" in file.read_text(encoding="utf-8")] == []
