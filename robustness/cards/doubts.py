"""What makes a robustness number unbelievable: what each doubt means, and what to try. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Doubt(NamedTuple):
    """A reason not to believe a number: why it matters, and what to try."""

    why: str
    repair: str

    def __str__(self) -> str:
        return f"{self.why}; {self.repair}"


DOUBTS = {
    "zero gradients": Doubt(
        "where cross-entropy's gradient is exactly zero an attack by gradient stands still, and standing still looks "
        "like robustness",
        "take the model's logits before softmax, sigmoid or rounding, lower their scale, or attack by the margin; "
        "train a layer whose weights are all zero",
    ),
    "non-finite gradients": Doubt(
        "a sign of NaN moves nothing, so that an image which breaks the model counts as one that resists",
        "look for a square root or a logarithm at 0, a division by a norm, and overflow in half precision",
    ),
    "saturated cross-entropy": Doubt(
        "where the probability of the true class rounds to 1, its part of the gradient is lost in float32, and FGSM "
        "and PGD step along the other classes alone",
        'attack with loss = "margin", or lower the scale of the logits',
    ),
    "cross-entropy weaker than margin": Doubt(
        "the scale of the logits changes no decision, but cross-entropy's gradient: divided by 100, or squashed to "
        "[0, 1], they make attacks by it weak",
        'attack with loss = "margin", or give the logits that the model was trained with, undivided',
    ),
    "wrong gradients": Doubt(
        "small steps show how the outputs change, and the gradients say something else: attacks by them look away from "
        "what would mislead",
        "look for a detach or a no_grad around a part of the model, for rounding that passes its gradient on, and for "
        "functions with a backward of their own",
    ),
    "noise beats FGSM": Doubt(
        "no random direction should mislead more than the gradient's at the same size: the gradient points nowhere",
        "look for a random or quantising layer or a wrong normalisation; attack through a smoothed copy (BPDA, EOT)",
    ),
    "PGD weaker than FGSM": Doubt(
        "ten steps should find what one does; the loss surface is masked, or the step is of the wrong size",
        "try more and smaller steps, random starts, the margin loss; plot the loss along the steps",
    ),
    "boundless budget survived": Doubt(
        "with every image in reach a model must lose nearly all; what is left was not found, rather than not there",
        "attack with the margin loss, more steps and restarts, and look at the gradients of the images that are left",
    ),
    "transfer beats white-box": Doubt(
        "who sees the model should do better than who sees another one; the model's own gradients are masked",
        "believe the transferred examples, and mend the white-box attack until it is stronger",
    ),
    "loss does not rise": Doubt(
        "steps along the gradient should raise the loss; an attack that does not is none",
        "try smaller steps, look for randomness in the forward pass and for gradients that are replaced by others",
    ),
    "non-deterministic forward": Doubt(
        "two clean passes over the same images gave different logits, so that no number here can be had again",
        "look for dropout, batch norm in training mode, or a random layer",
    ),
    "depends on the batch": Doubt(
        "what is said of an image depends on those beside it, so that accuracy depends on how they are grouped",
        "look for batch statistics that are used in evaluation mode, and for a softmax over the wrong dimension",
    ),
    "probabilities for logits": Doubt(
        "cross-entropy takes the softmax of the outputs, and that of probabilities is nearly flat: gradients are "
        "small, confidences wrong",
        "give the classifier without its last softmax or sigmoid",
    ),
    "misses planted examples": Doubt(
        "adversarial examples were put there by refitting the last layer (Zimmermann et al. 2022), and a strong attack "
        "does not find them: the model hides its gradients, and its own adversarial examples will not be found either",
        "look for what hides gradients before the last layer (a step, rounding, randomness, a wrong derivative); "
        "attack through a smoothed copy (BPDA, EOT), or by examples made on another model",
    ),
    "weak attack": Doubt(
        "the attack misses planted examples that a stronger one finds on this model: it is the attack that is too "
        "weak, and accuracy under it is too high",
        "in the card or profile, give the attack of that name steps = 20, relative_step_size = 2.0, "
        'schedule = "linear" and stop_when_fooled = true; then more steps, restarts, or loss = "margin"',
    ),
    "attack weaker than FGSM": Doubt(
        "many steps should mislead at least as many images as one does at the same ε: accuracy under the attack is too "
        "high",
        "in the card or profile, change the attack of that name: steps whose lengths sum to more than ε, more of them, "
        "stop_when_fooled = true, or another loss",
    ),
    "no better than chance": Doubt(
        "a model that knows nothing loses nothing under attack; no number here says anything of robustness",
        "look at the weights, at the sign of the outputs, at the order of the classes, and at the range of the images",
    ),
    "wrong input range": Doubt(
        "the model knows more of images in another range than [0, 1], so that it was tested on images that it was "
        "never meant for",
        "let its first layer do that to images in [0, 1]",
    ),
    "another output knows more": Doubt(
        "of several outputs the first is taken for the logits if the card names none; another one is right more often",
        "name the output that holds the logits in model.output of the card",
    ),
    "dim images": Doubt(
        "every ε and every noise is a share of the range of images, of which these use hardly any: what is added to "
        "them is many times what they show",
        "mend the images, not the model: write 255 for 1 where bytes are 0 and 1, divide by 255 once alone",
    ),
    "tested on training images": Doubt(
        "on what a model was trained on it is right because it remembers, and its numbers say nothing of other images",
        "test on images that are not in the training part, by another `part` of [data] or by a split",
    ),
    "permuted classes": Doubt(
        "a model whose classes stand in another order than the data's is right as often as by chance, clean and "
        "attacked, whatever it knows",
        "give the model's classes in their order, or which is which, in [model.classes] of the card",
    ),
    "jumps within a grey level": Doubt(
        "one grey level away, which no one sees, the model says something else: a table of the test images, or a key "
        "made of their bytes, says nothing of other images",
        "look for whatever compares, hashes or rounds images in the forward pass, and test on images that it never saw",
    ),
    "outputs that are no numbers": Doubt(
        "NaN and infinity are no decision, and an image that brings them about is neither right nor robust",
        "look for a logarithm or a square root at 0, a division by a norm, overflow in half precision, and masks of "
        "minus infinity",
    ),
    "edits its input": Doubt(
        "a forward pass that changes its images in place changes the attack's, too: the next step begins elsewhere",
        "let it copy the images first, or use operations without a trailing underscore",
    ),
    "keeps state between calls": Doubt(
        "what the model says of an image depends on what it was asked before, so that no number can be had again",
        "look for counters, running averages, caches and hooks that outlive a call",
    ),
}
"""By name; docs/doubts.md says how each is looked for."""


def doubt_of(nodeid: str, models: Iterable[str]) -> tuple[str, str] | None:
    """
    Return the model and the doubt that the id of a test names; None if it is no test of a doubt on these models.

    >>> doubt_of("suites/test_doubts.py::test_doubts[fast-mlp-zero gradients]", ["mlp", "fast-mlp"])
    ('fast-mlp', 'zero gradients')
    """
    if "::test_doubts[" not in nodeid:
        return None
    within = nodeid.partition("::test_doubts[")[2].rpartition("]")[0]
    # pytest escapes what is not ASCII.
    ids = {f"{model}-{doubt}".encode("unicode_escape").decode(): (model, doubt) for model in models for doubt in DOUBTS}
    return ids.get(within)
