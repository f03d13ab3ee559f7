"""Weights in shards, and models that are a file: TorchScript, ONNX, torch.export."""

import json
import warnings

import helpers
import numpy as np
import pytest
import safetensors.torch
import torch
from found_models import card, open_workspace
from torch import nn

from robustness import cards
from robustness.classifiers import checkpoints, weights
from robustness.classifiers.modules import replicas, restored_afterwards
from robustness.doubts.checks import run_checks
from robustness.errors import ModelError

pytestmark = pytest.mark.usefixtures("own_path")


def net(seed=0):
    return helpers.linear(helpers.digits(), seed)


STATE = net(1).state_dict()
SOURCE = "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"


# Shards


@pytest.fixture
def index(tmp_path):
    for i, (name, tensor) in enumerate(STATE.items()):
        (tmp_path / f"part{i}.safetensors").write_bytes(safetensors.torch.save({name: tensor}))
    placed = {name: f"part{i}.safetensors" for i, name in enumerate(STATE)}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return path


def test_shards_are_put_together(index):
    module = net()
    assert checkpoints.load_checkpoint(module, index) == ["model.safetensors.index.json: read 2 shards"]
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in module.state_dict().items())


def test_the_content_of_shards_is_that_of_their_files(index):
    """Catches: evidence that is believed although a shard was exchanged, whose index stays as it was."""
    before = weights.content_hash(index)
    assert weights.content_hash(index) == before
    part = index.with_name("part1.safetensors")
    part.write_bytes(safetensors.torch.save({"1.bias": torch.zeros(10)}))
    assert weights.content_hash(index) != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not an index of shards"),
        ("[]", "not an index of shards"),
        ('{"weight_map": {"1.bias": "../w.safetensors"}}', "must be a file beside it"),
        ('{"weight_map": {"1.bias": "/etc/passwd"}}', "must be a file beside it"),
        ('{"weight_map": {"1.bias": 3}}', "not an index of shards"),
        ('{"weight_map": {"1.bias": "gone.safetensors"}}', r"gone\.safetensors: there is no such weights file"),
        ('{"weight_map": {"1.bias": "part0.safetensors"}}', r"assigns 1\.bias to it, which it does not hold"),
        ('{"weight_map": {"1.bias": "part1.safetensors"}}', r"another architecture: missing: 1\.weight$"),
    ],
)
def test_an_index_that_cannot_be(index, text, message):
    index.write_text(text)
    with pytest.raises(ModelError, match=message):
        checkpoints.load_checkpoint(net(), index)


# Models that are a file


@pytest.fixture
def script(tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net(1).eval(), torch.rand(2, 1, 28, 28)).save(path)
    return path


def onnx_file(path, module, batch="n", inputs=1, half=False):
    """Write an ONNX file of a linear layer by hand: torch's exporter needs seconds and warns."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    state = {name: tensor.half() if half else tensor for name, tensor in module.state_dict().items()}
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "1.weight", "1.bias"], ["logits"], transB=1),
    ]
    given = [helper.make_tensor_value_info(n, kind, [batch, 1, 28, 28]) for n in ("images", "tokens")[:inputs]]
    graph = helper.make_graph(
        nodes, "net", given, [helper.make_tensor_value_info("logits", kind, [batch, 10])],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in state.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


def test_a_torchscript_file_is_swept_as_its_module_is(tmp_path, script):
    """Catches: a file that runs but gives no gradients, or other ones."""
    of = open_workspace(tmp_path)
    made = card(tmp_path, 'factory = "torchscript:net.pt"')
    got = of.evidence(made, "fgsm")
    torch.save(STATE, tmp_path / "models" / "w.pt")
    due = of.evidence(card(tmp_path, 'factory = "script_net:Net"', 'weights = "w.pt"', script_net=SOURCE), "fgsm")
    assert got.status == due.status == ("ok",)
    np.testing.assert_allclose(got.loss, due.loss, rtol=1e-4)


def test_a_torchscript_file_leaves_as_it_came_and_runs_in_several_threads(tmp_path, script):
    """Catches: a module whose copies share what they should not, or that is left asking for no gradients."""
    of = open_workspace(tmp_path)
    made = card(tmp_path, 'factory = "torchscript:net.pt"')
    module = of.classifier(made).module
    inputs = torch.rand(3, 1, 28, 28)
    with restored_afterwards(module) as lent, torch.inference_mode():
        first, *others = [each(inputs) for each in replicas(lent, 3)]
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, net(1)(inputs).detach())
    assert all(p.requires_grad for p in module.parameters())


def test_an_onnx_file_is_a_black_box(tmp_path):
    """Catches: noise that needs gradients, a gradient attack that stands still and so looks like robustness."""
    onnx_file(tmp_path / "models" / "net.onnx", net(1))
    of, made = open_workspace(tmp_path), card(tmp_path, 'factory = "onnx:net.onnx"')
    clean, noisy, attacked = (of.evidence(made, name) for name in ("clean", "normal", "fgsm"))
    assert clean.status == noisy.status == ("ok",)
    assert attacked.status[0].startswith("raised GradientError: net.onnx is an ONNX file, which onnxruntime runs with")
    assert (attacked.predictions == -1).all()
    inputs = torch.from_numpy(of.images(made).batch(0, 20))
    assert clean.predictions[0].tolist() == net(1)(inputs).argmax(1).tolist()
    found = run_checks(of.classifier(made).module, of.images(made), count=20)
    assert "not checked: net.onnx is an ONNX file" in found["zero gradients"]["seen"]
    assert found["depends on the batch"]["doubted"] is False


def test_natural_changes_and_transfer_work_on_an_onnx_file(tmp_path):
    """Catches: a gradient asked of the file where it is the target alone, examples that are the clean images."""
    onnx_file(tmp_path / "models" / "net.onnx", net(1))
    made = card(tmp_path, 'factory = "onnx:net.onnx"')
    torch.save(STATE, tmp_path / "models" / "w.pt")
    other = made.path.read_text().replace('"found"', '"other"', 1)
    other = other.replace('factory = "onnx:net.onnx"', 'factory = "source_net:Net"\nweights = "w.pt"')
    (tmp_path / "models" / "other.toml").write_text(other)
    (tmp_path / "source_net.py").write_text(SOURCE)
    of = open_workspace(tmp_path)
    bright = of.evidence(made.with_sweep("own", {"kind": "brightness", "strengths": [0.3]}), "own")
    crossed = {"kind": "fgsm", "strengths": [0.1], "source": "other.toml"}
    moved = of.evidence(made.with_sweep("own", crossed), "own")
    assert bright.status == moved.status == ("ok",)
    itself = of.evidence(cards.load(tmp_path / "models" / "other.toml"), "fgsm")
    assert (moved.predictions == itself.predictions).all()  # for the file holds the source's weights


def test_an_onnx_file_outside_of_the_project_is_said(tmp_path):
    """Catches: a notice about the card's weights, of which it names none."""
    (tmp_path / "models").mkdir()
    onnx_file(tmp_path / "models" / "net.onnx", net(1))
    inner = tmp_path / "inner"
    made = card(inner, 'factory = "onnx:../../models/net.onnx"')
    of = open_workspace(inner)
    of.weights(made)
    assert any("model.factory = 'onnx:../../models/net.onnx': its weights lie outside of its" in n for n in of.notices)


@pytest.mark.parametrize(("given", "atol"), [({"batch": 3}, 1e-6), ({"half": True}, 0.01)], ids=["batch", "half"])
def test_an_onnx_file_of_one_size_of_batch_or_of_half_precision_takes_all(tmp_path, given, atol):
    """Catches: images of a last batch that are lost, or that the padding is taken for; float32 for float16."""
    onnx_file(tmp_path / "models" / "net.onnx", net(1), **given)
    inputs = torch.rand(7, 1, 28, 28)
    with torch.inference_mode():
        got = open_workspace(tmp_path).classifier(card(tmp_path, 'factory = "onnx:net.onnx"')).module(inputs)
        torch.testing.assert_close(got, net(1)(inputs), rtol=1e-5, atol=atol)


def test_other_weights_are_other_evidence_wherever_the_file_lies(tmp_path):
    """Catches: a key that has the file's name in it, or that has nothing of its content."""
    onnx_file(tmp_path / "models" / "one.onnx", net(1))
    onnx_file(tmp_path / "models" / "same.onnx", net(1))
    onnx_file(tmp_path / "models" / "other.onnx", net(2))
    made = [card(tmp_path, f'factory = "onnx:{name}.onnx"') for name in ("one", "same", "other")]
    one, same, other = (open_workspace(tmp_path).key(each, "clean") for each in made)
    assert one == same != other
    candidate = card(tmp_path, 'factory = "onnx:one.onnx"', 'weights = "other.onnx"')
    assert open_workspace(tmp_path).key(candidate, "clean") == other


def test_a_file_of_several_inputs_or_of_nothing_is_refused(tmp_path, script):
    onnx_file(tmp_path / "models" / "two.onnx", net(1), inputs=2)
    with pytest.raises(ModelError, match="must take images alone, got the inputs images, tokens"):
        open_workspace(tmp_path).classifier(card(tmp_path, 'factory = "onnx:two.onnx"'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Bilinear(2, 2, 2)).save(tmp_path / "models" / "two.pt")
    with pytest.raises(ModelError, match="must take images alone, got a model whose forward needs input1, input2"):
        open_workspace(tmp_path).classifier(card(tmp_path, 'factory = "torchscript:two.pt"'))
    for kind, message in (("onnx", "not an ONNX file that onnxruntime can"), ("torchscript", "not a TorchScript file")):
        (tmp_path / "models" / "torn").write_bytes(script.read_bytes()[:99])
        with pytest.raises(ModelError, match=message):
            open_workspace(tmp_path).classifier(card(tmp_path, f'factory = "{kind}:torn"'))


@pytest.mark.parametrize(("name", "factory"), [("net.pt", "torchscript:net.pt"), ("net.onnx", "onnx:net.onnx")])
def test_a_whole_model_for_weights_says_what_to_write(tmp_path, script, name, factory):
    """Catches: a file that is called torn although it is whole."""
    onnx_file(tmp_path / "models" / "net.onnx", net(1))
    with pytest.raises(ModelError, match=f'is a whole model; write factory = "{factory}"'):
        checkpoints.load_checkpoint(net(), tmp_path / "models" / name)


def exported(tmp_path, batch):
    """Write a torch.export file of a net with batch norm, for batches of any size, of at most 8, or of 3."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own parts
        torch.manual_seed(0)
        made = nn.Sequential(nn.Conv2d(1, 2, 5, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
        made(torch.rand(9, 1, 28, 28))
        dimension = {"any": torch.export.Dim.DYNAMIC, "at most 8": torch.export.Dim("n", min=1, max=8), "of 3": None}
        shapes = None if dimension[batch] is None else ({0: dimension[batch]},)
        program = torch.export.export(made.eval(), (torch.rand(3, 1, 28, 28),), dynamic_shapes=shapes)
        (tmp_path / "models").mkdir(exist_ok=True)
        torch.export.save(program, tmp_path / "models" / "net.pt2")
    return made


@pytest.mark.parametrize("batch", ["any", "at most 8", "of 3"])
def test_a_torch_export_file_is_swept_as_its_module_is(tmp_path, batch):
    """Catches: a file that takes one size of batch alone, gives no gradients, or raises where its mode is set."""
    due = exported(tmp_path, batch)
    of, made = open_workspace(tmp_path), card(tmp_path, 'factory = "torchexport:net.pt2"')
    loaded = of.classifier(made)
    assert bool([note for note in loaded.notes if "batches of 3 images" in note]) == (batch == "of 3")
    for count in (1, 3, 7):
        inputs, same = (torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0)) for _ in range(2))
        given, own = loaded.module(inputs.requires_grad_()), due(same.requires_grad_())
        torch.testing.assert_close(given, own)
        given.logsumexp(1).sum().backward()
        own.logsumexp(1).sum().backward()
        torch.testing.assert_close(inputs.grad, same.grad)
    clean, attacked = of.evidence(made), of.evidence(made, "fgsm")
    assert clean.status == attacked.status == ("ok",)
    inputs = torch.from_numpy(of.images(made).batch(0, 20))
    assert clean.predictions[0].tolist() == due(inputs).argmax(1).tolist()


def test_a_torch_export_file_runs_only_where_it_is_named_so(tmp_path):
    """Catches: a file that is run because of how its name ends."""
    exported(tmp_path, "any")
    with pytest.raises(
        ModelError, match=r'torch\.export file is a whole model; write factory = "torchexport:net\.pt2"'
    ):
        checkpoints.load_checkpoint(net(), tmp_path / "models" / "net.pt2")
    (tmp_path / "models" / "torn.pt2").write_bytes((tmp_path / "models" / "net.pt2").read_bytes()[:99])
    with pytest.raises(ModelError, match=r"torn\.pt2: not a torch\.export file that can be read"):
        open_workspace(tmp_path).classifier(card(tmp_path, 'factory = "torchexport:torn.pt2"'))
