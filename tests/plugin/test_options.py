"""What a run may be asked for."""

import pytest

from robustness.errors import RobustnessError
from robustness.plugin import options
from robustness.plugin.options import RunOptions
from robustness.util import hardware


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": -1}, r"`seed` must lie in \[0, 2\*\*32\), got -1"),
        ({"seed": 2**32}, "`seed`"),
        ({"device": "gpu"}, "`device` must be cpu, cuda, cuda:N or auto, got 'gpu'"),
        ({"device": "cuda:"}, "`device`"),
        ({"device": "cuda:-1"}, "`device`"),
        ({"device": "cpu:0"}, "`device`"),
        ({"device": "cuda:2"}, r"`device` = 'cuda:2': this machine has 0 GPU\(s\) that torch can use"),
    ],
)
def test_options_that_cannot_be(given, said, monkeypatch):
    monkeypatch.setattr(hardware, "gpu_count", lambda: 2)
    monkeypatch.setattr(options, "_torch_gpus", lambda: 0)
    with pytest.raises(RobustnessError, match=said):
        RunOptions(**given).check()


def test_options_that_can_be(monkeypatch):
    """Catches: torch asked although the driver lists enough, or not asked where it lists none."""
    asked = []
    monkeypatch.setattr(hardware, "gpu_count", lambda: 2)
    monkeypatch.setattr(options, "_torch_gpus", lambda: asked.append(1) or 4)
    for device in ("cpu", "auto", "cuda", "cuda:1"):
        RunOptions(device=device, seed=2**32 - 1).check()
    assert asked == []
    RunOptions(device="cuda:3").check()
    assert asked != []
