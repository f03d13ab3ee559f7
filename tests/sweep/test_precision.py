"""Other precisions: entries of their own, what they decide otherwise is said, and float32 stays what it is."""

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.classifiers import precision
from robustness.cli import main
from robustness.errors import RobustnessError
from robustness.perturbations import FGSM, PGD, Clean, GaussianNoise
from robustness.sweep.runner import run_sweep

SEEDED = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"\n', "")
SEEDED = SEEDED.replace('factory"', 'factory"\nseed = 1', 1)


class Rounds(nn.Module):
    """A sum that bfloat16 cannot hold: the first class wins by a part in a thousand, in float32 alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[1.001, 1.0], [1.0, 1.0]])

    def forward(self, inputs):
        logits = self.linear(inputs.flatten(1)[:, :1].expand(-1, 2).clamp(0.5, 1))
        return torch.stack([logits[:, 0] - logits[:, 1], torch.full_like(logits[:, 0], 1e-4)], 1)


def test_decisions_that_differ_are_counted():
    """Catches: a comparison with itself, or of the precision's own rounding hidden by another batch."""
    images = helpers.images(30, shape=(1, 2), classes=2)
    exact = run_sweep(Rounds(), images, Clean(), [0])
    rough = run_sweep(Rounds(), images, Clean(), [0], dtype="bf16")
    assert (exact.predictions == 0).all()
    assert (rough.predictions == 1).all()
    assert rough.provenance["float32"] == {"images": 30, "differ": {"0": 30}}
    assert rough.provenance["notes"]["0"] == "bf16 differs from float32 in 30 of 30 decisions (100.00%)"
    assert "float32" not in exact.provenance
    assert (exact.provenance["dtype"], rough.provenance["dtype"]) == ("float32", "bf16")
    assert (exact.machine + " in bf16", False) == (rough.machine, "bf16" in exact.machine)


@pytest.mark.parametrize("perturbation", [GaussianNoise(), FGSM(), PGD(steps=2)], ids=repr)
def test_bf16_is_autocast_s(perturbation):
    """Logits are those of torch's own autocast. Catches: float32 under another name; threads or batches that show."""
    images = helpers.images(130, shape=(8, 8, 3))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)).eval()
    of = {"dtype": "bf16", "batch_size": 50, "beside_float32": False}
    first, second = (run_sweep(model, images, perturbation, [0.0, 0.1], threads=n, **of) for n in (1, 2))
    assert first.digest == second.digest
    plain = run_sweep(model, images, perturbation, [0.0, 0.1], batch_size=50)
    assert first.digest != plain.digest
    assert np.allclose(first.loss, plain.loss, rtol=0.2, atol=0.2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        due = model(torch.from_numpy(images.batch(0, 50))).float().log_softmax(1)
    due = -due.gather(1, torch.from_numpy(images.labels[:50].copy())[:, None]).squeeze(1)
    assert np.allclose(first.loss[0, :50], due, atol=1e-2)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_no_number_is_no_robustness_in_bf16_either():
    """Catches: a NaN that appears in bfloat16 alone and is decided, or compared, as if it were a number."""

    class Overflows(nn.Module):
        def forward(self, inputs):
            logits = inputs.flatten(1)[:, :3] @ torch.eye(3)
            return logits / 0 if logits.dtype == torch.bfloat16 else logits

    images = helpers.images(20)
    evidence = run_sweep(Overflows(), images, Clean(), [0], dtype="bf16")
    assert evidence.status[0].startswith("non-finite logits for 20 of 20")
    assert (evidence.predictions == -1).all()
    assert evidence.provenance["float32"]["differ"] == {}


@pytest.mark.parametrize(
    ("dtype", "said"),
    [("tf32", "needs a GPU, and the device is cpu"), ("fp16", "must be float32, tf32 or bf16, got 'fp16'")],
)
def test_precisions_that_cannot_be(dtype, said):
    """Catches: float32 under the name of another precision."""
    images = helpers.images(5)
    with pytest.raises(RobustnessError, match=said):
        run_sweep(helpers.linear(images), images, Clean(), [0], dtype=dtype)


def test_entries_of_their_own(tmp_path, own_path, monkeypatch, capsys):
    """Catches: one key for two precisions; an option that is taken and forgotten; float32 keys that changed."""
    path = helpers.project(tmp_path, card=SEEDED)
    card = cards.load(path)
    plain, rough = helpers.open_workspace(path), helpers.open_workspace(path, dtype="bf16")
    fields = [each.key_fields(each.resolve(card, "normal")) for each in (plain, rough)]
    assert fields[0] == fields[1] | {"dtype": "float32"}
    monkeypatch.chdir(tmp_path)
    words = ["tiny", "--store", str(rough.store.root)]
    assert main.main(["sweep", *words, "--dtype", "bf16"]) == 0
    assert rough.store.evidence(rough.key(card, "normal"), card.project)[0] is not None
    assert rough.store.evidence(plain.key(card, "normal"), card.project)[0] is None
    assert rough.evidence(card, "normal").provenance["float32"]["images"] == 30
    capsys.readouterr()
    assert main.main(["sweep", *words, "--dtype", "tf32"]) == 2
    assert "tf32" in capsys.readouterr().err


def test_a_gpu_multiplies_as_asked_meanwhile():
    """Torch's default for convolutions is TF32. Catches: float32 that is not, or a setting that stays."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    for dtype, due in (("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        with precision.matmul_precision(dtype, "cuda:0"):
            assert [place.fp32_precision for place in places] == [due] * 2
    assert [place.fp32_precision for place in places] == before
