"""What the eyes-parseval report printed, and what its networks are called."""

from __future__ import annotations

from functools import partial

from reports import writing

printed = partial(writing.printed, "eyes_parseval")
NAMES = {
    "parseval": "Parseval", "wrn": "ResNet (WRN-16-1)", "parseval-adv": "Parseval, adversarial",
    "wrn-adv": "ResNet, adversarial", "cnn": "CNN", "cnn-wd": "CNN, weight decay",
    "cnn-wd-adv": "CNN, weight decay + adversarial", "cnn-orth": "CNN, orthogonality",
    "dense": "fully connected", "dense-parseval": "fully connected, Parseval",
}  # fmt: skip
