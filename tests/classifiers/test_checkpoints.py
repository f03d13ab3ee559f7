"""Checkpoints as trainings leave them: what lies beside the weights, what wraps their names, what is none at all."""

import argparse
import datetime
import enum
import functools
import os
import pathlib
import pickle
import subprocess
import warnings
from collections import Counter, OrderedDict, defaultdict

import helpers
import numpy as np
import pytest
import safetensors.torch
import torch
from found_models import card, open_workspace
from helpers import images
from torch import nn

from robustness.classifiers import checkpoints, pickles, weight_names
from robustness.errors import ModelError
from robustness.util import file_formats


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.head(self.second(self.first(images[:, 0, 0, :4]).relu()).relu())


def trained(make=Net, seed=1):
    """A net whose batch norm has seen images, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        net(torch.rand(16, 1, 6, 6))
    return net.eval()


IMAGES = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
NET = trained()
STATE = NET.state_dict()
OTHER = trained(seed=2).state_dict()


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def inside(part, wrapper, state=STATE):
    return {name.replace(f"{part}.", f"{part}.{wrapper}."): tensor for name, tensor in state.items()}


def put(tmp_path, content, module=None, name="w.pt", entry=None, **options):
    """Save something, load it into a module, and hold what this says against the net that was saved."""
    module, path = module or trained(seed=3), tmp_path / name
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(content, path)
    elif name.endswith(".npz"):
        np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        torch.save(content, path, **options)
    said = checkpoints.load_checkpoint(module, path, entry)
    return module.eval(), said


def assert_same(module, due=NET):
    with torch.inference_mode():
        torch.testing.assert_close(module(IMAGES), due(IMAGES), rtol=0, atol=0)


# What lies beside the weights


class Config(dict):
    """A dictionary of a training's own."""


class Settings:
    """An object of a training's own."""

    def __init__(self):
        self.depth = 3


FORMS = {
    "plain": (STATE, []),
    "state_dict": ({"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 0.1}}, ["took the entry `state_dict`"]),
    "model": ({"model": STATE, "args": {"depth": 3}}, ["took the entry `model`"]),
    "model_state_dict": ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
                         ["took the entry `model_state_dict`"]),
    "averaged first": ({"state_dict": OTHER, "state_dict_ema": STATE},
                       ["took the entry `state_dict_ema` (also there: state_dict; `checkpoint_key`"]),
    "ema of a wrapper": ({"ema": {"module": STATE, "decay": 0.99}, "model": OTHER},
                         ["took the entry `ema.module` (also there: model; `checkpoint_key`"]),
    # Shadows without batch norm's statistics are not taken before the model that is whole.
    "ema of some": ({"ema": {name: 2 * tensor for name, tensor in STATE.items() if "running" not in name},
                     "model": STATE}, ["took the entry `model`"]),
    "another name": ({"best": STATE, "optimizer": torch.optim.Adam(NET.parameters()).state_dict()},
                     ["took the entry `best`"]),
    "parallel": (prefixed("module."), ["removed from all names: `module.`"]),
    "compiled": (prefixed("_orig_mod."), ["removed from all names: `_orig_mod.`"]),
    "both": (prefixed("module._orig_mod."), ["removed from all names: `module.`, `_orig_mod.`"]),
    "lightning": ({"state_dict": prefixed("model."), "epoch": 1}, ["entry `state_dict`", "names: `model.`"]),
    "two prefixes": (prefixed("module.model."), ["removed from all names: `module.`, `model.`"]),
}  # fmt: skip


@pytest.mark.parametrize(("found", "notes"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_weights_and_says_what_was_done(tmp_path, found, notes):
    """Catches: weights that stay as they were initialised, the raw ones for the averaged, and a silent choice."""
    module, said = put(tmp_path, found)
    assert_same(module)
    assert len(said) == len(notes)
    assert all(note in each for note, each in zip(notes, said, strict=True)), said


BESIDE = {
    "timm's arguments": argparse.Namespace(lr=0.1, data=pathlib.PosixPath("/data")),
    "NumPy's numbers": [np.float64(0.9), {"history": [np.float32(0.5)]}, np.arange(3), np.dtype("f4"), np.array("a")],
    "paths": [pathlib.PosixPath("/data"), pathlib.PureWindowsPath("C:/data")],
    "times": [datetime.datetime(2020, 1, 1), datetime.timedelta(1), datetime.date(2020, 1, 1)],
    "collections": [defaultdict(list, a=[1]), Counter("aab"), OrderedDict(a=1), {1, 2}, frozenset([1]), slice(1, 2)],
    "torch's": [torch.float16, torch.device("cpu"), torch.Size([2]), torch.bfloat16],
    "a class, a function": [Net, len, functools.partial(max, 1)],
    "a training's own": [Settings(), Config(depth=3)],
}


BEFORE_1_6 = [name for name in BESIDE if name not in ("a class, a function", "a training's own")]


@pytest.mark.parametrize(
    ("name", "legacy"), [*((name, False) for name in BESIDE), *((name, True) for name in BEFORE_1_6)]
)
def test_what_lies_beside_the_weights_is_seen_through(tmp_path, name, legacy):
    """Catches: a file, of this torch or of one before 1.6, refused for what nobody needs of it."""
    content = {"state_dict": STATE, "epoch": 3, "args": BESIDE[name], "best_acc1": torch.tensor(91.2)}
    module, said = put(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    assert_same(module)
    assert said == ["w.pt: took the entry `state_dict`"]


class Runs:
    """What calls something when it is unpickled."""

    def __init__(self, call, *arguments):
        self.called = call, arguments

    def __reduce__(self):
        return self.called


class Mode(enum.Enum):
    FAST = 1


@pytest.mark.parametrize("form", ["zip", "legacy", 0, 2, 4, 5])
@pytest.mark.parametrize(
    ("what", "named"),
    [
        (Runs(os.mkdir, "ran"), r"(posix|nt)\.mkdir"),
        (Runs(eval, "__import__('os').mkdir('ran')"), r"((__builtin__|builtins)\.)?eval"),
        (Runs(subprocess.Popen, ["mkdir", "ran"]), r"(subprocess|commands)\.Popen"),
        (Runs(pathlib.Path.mkdir, pathlib.Path("ran")), r"(pathlib\S*|((__builtin__|builtins)\.)?getattr)"),
        (Mode.FAST, r"test_checkpoints\.Mode"),
    ],
    ids=["mkdir", "eval", "Popen", "method", "enum"],
)
def test_what_would_call_something_is_refused_by_its_name(tmp_path, monkeypatch, what, named, form):
    """Catches: code that runs when weights are read, a name missing from the refusal; a bare pickle that is loaded."""
    monkeypatch.chdir(tmp_path)
    content, path = {"state_dict": STATE, "args": what}, tmp_path / "w.pt"
    if isinstance(form, int):
        path.write_bytes(pickle.dumps({"state_dict": what}, form))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match=rf"it calls {named} when it is loaded; save module\.state_dict") as caught:
        checkpoints.load_checkpoint(trained(), path)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_nothing_of_a_file_is_imported_or_made(tmp_path):
    """Catches: a list of harmless names whose classes are made all the same, by arguments of a stranger's."""
    path = tmp_path / "w.pt"
    torch.save({"a": argparse.Namespace(x=1), "b": np.float64(1), "c": Settings(), "d": Settings}, path)
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set: its list has no order
    a, b, c, d = pickles.load(path).values()
    assert [type(each).__mro__[1] for each in (a, b, c)] == [pickles.Placeholder] * 3
    assert issubclass(d, pickles.Placeholder)
    assert set(torch.serialization.get_safe_globals()) == before


def test_losses_metrics_and_counters_are_left_out_and_said(tmp_path):
    """Catches: Lightning's files, averaged models and profiled ones refused as of another architecture."""
    more = {"criterion.weight": torch.ones(10), "val_acc.correct": torch.tensor(5.0)}
    module, said = put(tmp_path, {"state_dict": {**prefixed("model."), **more}, "hyper_parameters": {"lr": 0.1}})
    assert_same(module)
    assert said[1:] == [
        "removed from all names: `model.`", "ignored, not part of the model: criterion.weight, val_acc.correct",
    ]  # fmt: skip
    module, said = put(tmp_path, {**STATE, **more, "train_loss.mean_value": torch.ones(1)})
    assert_same(module)
    module, said = put(tmp_path, torch.optim.swa_utils.AveragedModel(NET).state_dict())
    assert_same(module)
    assert "ignored, not part of the model: n_averaged" in said
    tools = {name: torch.zeros(1) for name in ("total_ops", "total_params", "features.total_ops")}
    module, said = put(tmp_path, {**STATE, **tools, "epoch": 3})
    assert_same(module)
    assert said == ["ignored, not part of the model: epoch, features.total_ops, total_ops, total_params"]


def test_a_layer_that_the_model_lacks_is_not_left_out(tmp_path):
    """Catches: a deeper network's weights that are taken for the model's, the rest of them dropped."""
    for more in ({"norm.weight": torch.ones(3)}, {"features.3.weight": torch.ones(3)}):
        with pytest.raises(ModelError, match=r"another architecture: unexpected: (norm|features\.3)\.weight"):
            put(tmp_path, {**STATE, **more})
    with pytest.raises(ModelError, match=r"another architecture: unexpected: model\.features\.3\.weight"):
        put(tmp_path, prefixed("model.", {**STATE, "features.3.weight": torch.ones(3)}))
    with pytest.raises(ModelError, match=r"unexpected: module\.model\.features\.3\.weight$"):
        put(tmp_path, prefixed("module.model.", {**STATE, "features.3.weight": torch.ones(3)}))


def test_what_a_batch_norm_counts_may_be_missing_and_what_it_averages_may_not(tmp_path):
    plain = {name: tensor for name, tensor in STATE.items() if "num_batches" not in name}
    module, said = put(tmp_path, plain, name="w.safetensors")
    assert_same(module)
    assert said == ["missing, not needed in evaluation: features.1.num_batches_tracked"]
    del plain["features.1.running_var"]
    with pytest.raises(ModelError, match=r"another architecture: missing: features\.1\.running_var$"):
        put(tmp_path, plain)


# Names


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_what_wraps_a_part_is_seen_through_both_ways(tmp_path, wrapper):
    """Catches: a prefix that is only looked for at the beginning of all names, or in the file alone."""
    module, said = put(tmp_path, inside("features", wrapper))
    assert_same(module)
    assert said == [f"removed from names: `{wrapper}.`"]
    other = trained(seed=3)
    other.features = nn.Sequential(OrderedDict({wrapper: other.features}))
    module, said = put(tmp_path, STATE, other)
    assert_same(module)
    assert said == [f"added to names: `{wrapper}.`"]
    module, said = put(tmp_path, inside("head", wrapper, prefixed("module._orig_mod.")), other)
    assert_same(module)


def wrapped(name):
    return nn.Sequential(OrderedDict({name: trained(seed=3)}))


WRAP = {
    "parallel": (lambda: nn.DataParallel(trained(seed=3)), "module"),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(trained(seed=3)), "module"),
    "compiled": (lambda: wrapped("_orig_mod"), "_orig_mod"),  # by name, for to compile needs a compiler
}


@pytest.mark.parametrize(("wrap", "prefix"), WRAP.values(), ids=WRAP)
def test_a_model_that_is_wrapped_takes_plain_weights(tmp_path, wrap, prefix):
    """Catches: prefixes left out where they are the file's alone, and never put before names."""
    module, said = put(tmp_path, STATE, wrap())
    assert_same(module)
    assert said[0] == f"added to all names: `{prefix}.`"
    assert_same(put(tmp_path, prefixed("_orig_mod.module."), wrap())[0])
    assert_same(put(tmp_path, prefixed(f"{prefix}."), wrap())[0])


def test_of_several_that_fit_the_averaged_one_is_taken_or_the_card_says_which(tmp_path):
    """Catches: the wrong one of two models in silence; a choice that cannot be made."""
    both = {
        "state_dict": {
            **prefixed("model.", OTHER),
            **prefixed("ema_model.module."),
            "ema_model.n_averaged": torch.ones(1),
        }
    }
    module, said = put(tmp_path, both)
    assert_same(module)
    assert "took the entry `state_dict.ema_model` (also there: state_dict.model;" in said[0]
    assert_same(put(tmp_path, both, entry="state_dict.model")[0], put(tmp_path, OTHER)[0])
    pair = {"student": STATE, "teacher": OTHER}
    with pytest.raises(
        ModelError, match=r'several entries fit the model: student, teacher; .*checkpoint_key = "student"'
    ):
        put(tmp_path, pair)
    assert_same(put(tmp_path, pair, entry="teacher")[0], put(tmp_path, OTHER)[0])
    with pytest.raises(ModelError, match=r"model\.checkpoint_key = 'tutor': allowed in w\.pt: student, teacher"):
        put(tmp_path, pair, entry="tutor")
    flat = {**prefixed("student."), **prefixed("teacher.", OTHER)}
    assert_same(put(tmp_path, flat, entry="student")[0])


# Kinds of weights


def test_tied_weights_of_which_a_file_keeps_one(tmp_path):
    """Catches: what safetensors' save_model leaves out called missing; two tensors for one taken by chance."""
    due, path = trained(Tied), tmp_path / "t.safetensors"
    safetensors.torch.save_model(due, path)
    module = Tied()
    said = checkpoints.load_checkpoint(module, path)
    assert_same(module.eval(), due)
    assert module.second.weight is module.first.weight
    assert len(said) == 1
    assert "tied to" in said[0]
    state = due.state_dict()
    with pytest.raises(ModelError, match=r"first\.weight, second\.weight are one tensor in the model, and differ"):
        put(tmp_path, {**state, "second.weight": state["second.weight"] + 1}, Tied())


LAZY = """
from torch import nn

def Net():
    return nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
"""


@pytest.mark.parametrize("line", ['weights = "w.pt"', "seed = 0"])
def test_a_card_of_lazy_layers_is_swept(tmp_path, line):
    """Catches: a traceback; layers that turn into others during the first sweep; shapes not taken from the weights."""
    digits = images(20, (8, 8), 10)
    name = f"lazy_net_{line[0]}"
    made = card(tmp_path, f'factory = "{name}:Net"', line, **{name: LAZY})
    scope: dict = {}
    exec(LAZY, scope)
    net = scope["Net"]().eval()
    inputs = torch.from_numpy(digits.batch(0, 20))
    net(inputs)
    torch.save(net.state_dict(), tmp_path / "models" / "w.pt")
    assert checkpoints.load_checkpoint(scope["Net"](), tmp_path / "models" / "w.pt") == []
    of = open_workspace(tmp_path, digits, made)
    assert of.evidence(made, "fgsm").status == ("ok",)
    module = of.classifier(made).module
    assert type(module[0]) is nn.Conv2d
    if line == 'weights = "w.pt"':
        assert of.evidence(made).predictions[0].tolist() == net(inputs).argmax(1).tolist()


def test_lazy_layers_that_a_pass_does_not_reach_are_said(tmp_path):
    source = LAZY.replace("nn.Flatten(), nn.LazyLinear(10)", "nn.Flatten(), nn.Linear(7, 7), nn.LazyLinear(10)")
    made = card(tmp_path, 'factory = "stuck_net:Net"', "seed = 0", stuck_net=source)
    with pytest.raises(
        ModelError, match=r"lazy layers get their shapes from a forward pass, which raised RuntimeError"
    ):
        open_workspace(tmp_path, images(20, (8, 8), 10), made).classifier(made)


def normed(new):
    weight = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
    spectral = nn.utils.parametrizations.spectral_norm if new else nn.utils.spectral_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that the old one is old
        return nn.Sequential(nn.Flatten(), weight(nn.Linear(36, 5)), nn.ReLU(), spectral(nn.Linear(5, 4)))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_normed_weights_of_either_version_of_torch_fit(tmp_path, old, new):
    due = trained(lambda: normed(old))
    module, said = put(tmp_path, due.state_dict(), normed(new))
    with torch.inference_mode():
        torch.testing.assert_close(module(IMAGES), due(IMAGES))
    assert bool(said) == (old != new)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_with_in_float32_and_said(tmp_path, dtype):
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}
    module, said = put(tmp_path, state)
    with torch.inference_mode():
        torch.testing.assert_close(module(IMAGES), NET(IMAGES), rtol=0.02, atol=0.02)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in module.state_dict().items())
    assert said == [f"weights of {str(dtype).removeprefix('torch.')} are converted to float32"]


def test_an_npz_file_of_arrays_is_read(tmp_path):
    assert_same(put(tmp_path, STATE, name="w.npz")[0])


# What is none


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (NET, r"it is a whole pickled model \(\S*Net\).*torch\.load\('w\.pt', weights_only=False\)\.state_dict\(\)"),
        (
            {"model": NET, "epoch": 3},
            r"entry 'model' is a whole pickled model .*weights_only=False\)\['model'\]\.state",
        ),
        ([STATE], r"got list; save module\.state_dict"),
        ({"epoch": 3}, ""),
        ({"state_dict": {}}, ""),
        ({"state_dict": 3}, ""),
        ({"model": {"model": {"model": {"model": STATE}}}}, ""),
        (torch.optim.Adam(NET.parameters()).state_dict(), "got an optimizer's state"),
        ({"epoch": 3, "optimizer": torch.optim.SGD(NET.parameters(), 0.1).state_dict()}, "got the entries epoch, opt"),
        ({name: tensor.numpy() for name, tensor in STATE.items()}, "got NumPy's arrays; save tensors"),
        (torch.ones(3), "got Tensor"),
    ],
    ids=[
        "module",
        "nested module",
        "list",
        "number",
        "no entries",
        "an entry",
        "deep",
        "optimizer",
        "nested optimizer",
        "arrays",
        "tensor",
    ],
)
def test_what_holds_no_weights_by_name_is_called_what_it_is(tmp_path, content, said):
    with pytest.raises(ModelError, match=rf"w\.pt: must hold tensors by name.*{said}") as caught:
        put(tmp_path, content)
    assert len(str(caught.value).splitlines()) == 1


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.npz", "w.bin"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER.encode(), "it is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
        (b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "it is an HTML page"),
        (b"<HTML>Not found</HTML>", "it is an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is an XML document"),
        (b'{"error": "Repository not found"}', "it is JSON text"),
        (b"", "it is empty"),
        (b"\x1f\x8b\x08" + bytes(90), "it is compressed by gzip; decompress it: gunzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "it is an HDF5 file"),
        (b"PK\x03\x04" + bytes(90), "it is a truncated archive"),
    ],
    ids=["pointer", "page", "old page", "xml", "json", "empty", "gzip", "hdf5", "torn"],
)
def test_what_lies_in_the_place_of_weights_is_called_what_it_is(tmp_path, name, content, said):
    """Catches: a sign-in page or a pointer called torn, with advice that mends nothing."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        checkpoints.load_checkpoint(trained(), tmp_path / name)


def test_files_that_are_right_are_not_mistaken(tmp_path):
    torch.save(STATE, tmp_path / "w.pt")
    safetensors.torch.save_file(STATE, tmp_path / "w.safetensors")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({}))
    assert [file_formats.mistaken_file(path) for path in sorted(tmp_path.iterdir())] == ["", "", ""]
    (tmp_path / "w.pt").rename(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"one of torch\.save; rename it to \.pt"):
        checkpoints.load_checkpoint(trained(), tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"no pickle at all", b"\x80\x04 torn", b"import torch\n"])
def test_a_file_that_is_none_of_tensors(tmp_path, content):
    """Catches: torch's advice to load whatever it is all the same."""
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.pt: cannot be read without executing code, or is truncated") as caught:
        checkpoints.load_checkpoint(trained(), tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_of_another_architecture_are_listed_without_their_prefix_in_one_line(tmp_path):
    """Catches: every key as missing and unexpected for one misshapen; an error whose lines are a stranger's."""
    state = {**prefixed("module."), "module.head.bias": torch.zeros(3)}
    wrong = r"another architecture: of another shape: head\.bias \(3,\) instead of \(4,\)"
    with pytest.raises(ModelError, match=wrong + "; the file's model has 3 outputs: .*num_classes = 3"):
        put(tmp_path, state)
    with pytest.raises(ModelError, match=r"unexpected: 'two\\nlines.*….*'$") as caught:
        put(tmp_path, {**STATE, "two\nlines" * 50: STATE["head.bias"]})
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_prefixes_that_the_module_has_itself_stay():
    """Catches: names that are made to fit worse than they did."""
    module = nn.ModuleDict({"module": nn.Linear(2, 2)})
    (fit,) = weight_names.find_fits((), module.state_dict(), module.state_dict())
    assert (list(fit.state), fit.notes) == (["module.weight", "module.bias"], [])


def test_a_model_whose_layers_have_versions_takes_a_file_without(tmp_path):
    """Catches: versions that are lost with the file's form, which torchvision's MNASNet does not load without."""
    from robustness.util.torchvision_compat import models

    saved, loaded = (models.mnasnet0_5(num_classes=2) for _ in range(2))
    put(tmp_path, saved.state_dict(), loaded, name="w.safetensors")
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_card_names_the_entry(tmp_path, own_path):
    """Catches: an order of entries that nobody can overrule."""
    state, other = (helpers.linear(helpers.digits(), seed).state_dict() for seed in (1, 2))
    source = "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "models").mkdir()
    torch.save({"state_dict": state, "state_dict_ema": other}, tmp_path / "models" / "w.pt")
    lines = ['factory = "entry_net:Net"', 'weights = "w.pt"']
    made = card(tmp_path, *lines, 'checkpoint_key = "state_dict"', entry_net=source)
    of = open_workspace(tmp_path)
    assert torch.equal(of.classifier(made).module.state_dict()["1.weight"], state["1.weight"])
    assert of.evidence(made).status == ("ok",)
    assert "found: w.pt: took the entry `state_dict`" in of.notices
    assert open_workspace(tmp_path).key(card(tmp_path, *lines), "clean") != of.key(made, "clean")
    made = card(tmp_path, *lines, 'checkpoint_key = "state_dikt"')
    misspelt = r"model\.checkpoint_key = 'state_dikt': allowed in w.pt: .*did you mean 'state_dict'"
    with pytest.raises(ModelError, match=misspelt) as caught:
        open_workspace(tmp_path).classifier(made)
    assert str(made.path) in str(caught.value)
