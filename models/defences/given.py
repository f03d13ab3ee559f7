"""No training: the weights of another card's model, to be tested on other images than those beside its own."""

from __future__ import annotations

from torch import nn

from robustness.data.images import Images
from robustness.errors import TrainingError
from robustness.workspace.recipes import Job


def fit(module: nn.Module, images: Images, job: Job) -> nn.Module:
    """Take a trained model's weights: ``needs = { trained = "model.toml" }``."""
    if set(job.needs) != {"trained"}:
        raise TrainingError(
            f"`needs` must name the trained model alone, got {', '.join(job.needs) or 'none'}; add its card's file"
        )
    module.load_state_dict(job.needs["trained"].state_dict())
    return module.eval()
