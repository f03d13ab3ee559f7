"""Reasons to distrust a robustness number: the meaning of each doubt, and a remedy. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Doubt(NamedTuple):
    """A reason to distrust a number: why it matters, and a remedy."""

    why: str
    repair: str

    def __str__(self) -> str:
        return f"{self.why}; {self.repair}"


DOUBTS = {
    "zero gradients": Doubt(
        "if cross-entropy's gradient is exactly zero, a gradient attack does not move, which looks like robustness",
        "use the model's logits before softmax, sigmoid or rounding, reduce their scale, or attack with the margin "
        "loss; train a layer whose weights are all zero",
    ),
    "non-finite gradients": Doubt(
        "the sign of NaN moves nothing, so an image that breaks the model counts as robust",
        "look for a square root or a logarithm at 0, a division by a norm, and overflow in half precision",
    ),
    "saturated cross-entropy": Doubt(
        "if the probability of the true class rounds to 1, its part of the gradient is lost in float32, and FGSM and "
        "PGD follow only the other classes",
        'attack with loss = "margin", or reduce the scale of the logits',
    ),
    "cross-entropy weaker than margin": Doubt(
        "the scale of the logits changes no decision, but it changes cross-entropy's gradient: logits divided by 100, "
        "or squashed to [0, 1], make its attacks weak",
        'attack with loss = "margin", or return the logits that the model was trained with, unscaled',
    ),
    "wrong gradients": Doubt(
        "the outputs change otherwise under small steps than the gradients predict, so gradient attacks search in the "
        "wrong direction",
        "look for a detach or a no_grad around a part of the model, for rounding that passes its gradient on, and for "
        "functions with a backward of their own",
    ),
    "noise beats FGSM": Doubt(
        "no random direction should mislead more images than the gradient of the same size, so the gradient carries "
        "no information",
        "look for a random or quantising layer or a wrong normalisation; attack through a smoothed copy (BPDA, EOT)",
    ),
    "PGD weaker than FGSM": Doubt(
        "ten steps should find what one step finds; the loss surface is masked, or the step size is wrong",
        "try more and smaller steps, random starts, the margin loss; plot the loss along the steps",
    ),
    "boundless budget survived": Doubt(
        "with every image in reach, an attack must mislead the model on nearly all; the rest was missed, not robust",
        "attack with the margin loss, more steps and restarts, and inspect the gradients of the remaining images",
    ),
    "transfer beats white-box": Doubt(
        "a white-box attack should beat one computed on another model; the model's gradients are masked",
        "trust the transferred examples, and fix the white-box attack until it is stronger",
    ),
    "loss does not rise": Doubt(
        "steps along the gradient should raise the loss; an attack that does not is ineffective",
        "try smaller steps, look for randomness in the forward pass and for gradients that are replaced by others",
    ),
    "non-deterministic forward": Doubt(
        "two clean passes over the same images gave different logits, so no number here is reproducible",
        "look for dropout, batch norm in training mode, or a random layer",
    ),
    "depends on the batch": Doubt(
        "the prediction for an image depends on the others in its batch, so accuracy depends on the batches",
        "look for batch statistics in evaluation mode, and for a softmax over the wrong dimension",
    ),
    "probabilities for logits": Doubt(
        "cross-entropy applies a softmax to the outputs, and that of probabilities is nearly flat: gradients are "
        "small and confidences wrong",
        "return the classifier without its last softmax or sigmoid",
    ),
    "misses planted examples": Doubt(
        "adversarial examples were planted by refitting the last layer (Zimmermann et al. 2022), and a strong attack "
        "misses them: the model hides its gradients, so its own adversarial examples are missed too",
        "look for what hides gradients before the last layer (a step, rounding, randomness, a wrong derivative); "
        "attack through a smoothed copy (BPDA, EOT), or with examples computed on another model",
    ),
    "weak attack": Doubt(
        "the attack misses planted examples that a stronger one finds on this model: it is too weak, and accuracy "
        "under it is too high",
        "in the card or profile, give the attack of that name steps = 20, relative_step_size = 2.0, "
        'schedule = "linear" and stop_when_fooled = true; then more steps, restarts, or loss = "margin"',
    ),
    "attack weaker than FGSM": Doubt(
        "many steps should mislead at least as many images as one step with the same ε: accuracy under the attack is "
        "too high",
        "in the card or profile, change the attack of that name: steps whose lengths add up to more than ε, more "
        "steps, stop_when_fooled = true, or another loss",
    ),
    "no better than chance": Doubt(
        "a model at chance level cannot get worse under attack, so no number here measures robustness",
        "check the weights, the sign of the outputs, the order of the classes and the range of the images",
    ),
    "wrong input range": Doubt(
        "the model is more accurate on images in another range than [0, 1], so it was tested on images that it was "
        "not trained for",
        "let its first layer convert images from [0, 1] to that range",
    ),
    "another output knows more": Doubt(
        "if the card names no output, the first is used as the logits; another output is more accurate",
        "name the output with the logits in model.output of the card",
    ),
    "dim images": Doubt(
        "every ε and noise amplitude is a fraction of the pixel range, of which these images use hardly any: a "
        "perturbation is many times larger than their content",
        "fix the images, not the model: use 255 instead of 1 if bytes are 0 and 1, and divide by 255 only once",
    ),
    "tested on training images": Doubt(
        "a model may have memorised its training images, so its numbers say nothing about other images",
        "test on images that are not in the training part, by another `part` of [data] or by a split",
    ),
    "permuted classes": Doubt(
        "a model whose classes are in another order than the data's is at chance level, clean and attacked, however "
        "good it is",
        "list the model's classes in their order, or map them, in [model.classes] of the card",
    ),
    "jumps within a grey level": Doubt(
        "an invisible change of one grey level changes the prediction: a lookup table of the test images, or a hash "
        "of their bytes, says nothing about other images",
        "look for code that compares, hashes or rounds images in the forward pass, and test on new images",
    ),
    "outputs that are no numbers": Doubt(
        "NaN and infinity are no decision, so an image that causes them is neither correct nor robust",
        "look for a logarithm or a square root at 0, a division by a norm, overflow in half precision, and masks of "
        "minus infinity",
    ),
    "edits its input": Doubt(
        "a forward pass that changes its images in place changes the attack's images too, so the next step starts "
        "elsewhere",
        "let it copy the images first, or use operations without a trailing underscore",
    ),
    "keeps state between calls": Doubt(
        "the prediction for an image depends on earlier calls, so no number is reproducible",
        "look for counters, running averages, caches and hooks that outlive a call",
    ),
}
"""By name; docs/doubts.md says how each is looked for."""


def doubt_of(nodeid: str, models: Iterable[str]) -> tuple[str, str] | None:
    """
    Return the model and the doubt of a test id; None if it is no test of a doubt on these models.

    >>> doubt_of("suites/test_doubts.py::test_doubts[fast-mlp-zero gradients]", ["mlp", "fast-mlp"])
    ('fast-mlp', 'zero gradients')
    """
    if "::test_doubts[" not in nodeid:
        return None
    within = nodeid.partition("::test_doubts[")[2].rpartition("]")[0]
    # pytest escapes what is not ASCII.
    ids = {f"{model}-{doubt}".encode("unicode_escape").decode(): (model, doubt) for model in models for doubt in DOUBTS}
    return ids.get(within)
