"""What the hybrid-gan paper printed, and where its text contradicts its tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from reports import writing
from reports.hybrid_gan.protocol import CLASSIFIERS, COUNTS, STREAMS, TEST, TITLES, VALIDATION

printed = partial(writing.printed, "hybrid_gan")
CIFAR10 = 60_000
# A stream has 1,000 images, and the cells fit ten streams each.
STREAM, DRAWS = 1000, 10


def fits(percent: float, images: int) -> bool:
    """
    Return whether a printed rate is that of a whole number of images.

    >>> fits(89.33, 300), fits(89.33, 500)
    (True, False)
    """
    near = round(percent / 100 * images)
    return any(round(100 * count / images, 2) == percent for count in (near - 1, near, near + 1))


def contradictions() -> Iterator[str]:
    """Return a sentence per statement of the text that its own tables, or CIFAR-10, contradict."""
    text, streams = printed()["text"], printed()["streams"]
    yield f"It speaks of {text['real_images']:,} real images; CIFAR-10 has {CIFAR10:,}, so some would be there twice."
    sizes = [2 * sum(COUNTS.values()), 20 * VALIDATION, 20 * TEST]
    shares = ":".join(f"{100 * size / sum(sizes):.0f}" for size in sizes)
    yield f"It divides the set by {':'.join(map(str, text['split']))}; the counts of table 1 are {shares}."
    for name in CLASSIFIERS:
        for share, (_, adversarial) in zip(STREAMS, streams[name], strict=True):
            images = round(DRAWS * share * STREAM)
            if not fits(adversarial, images):
                yield (
                    f"{TITLES[name]}'s {adversarial:.2f} % of adversarial images in streams with {share:.0%} of them "
                    f"is no whole number of {images} images; the 3 % cell has {streams[name][0][1]:.2f} too."
                )
    real = {name: [cell[0] for cell in streams[name][:2]] for name in CLASSIFIERS}
    best = max(real, key=lambda name: max(real[name]))
    if best != "resnet50":
        yield (
            f"It calls ResNet-50 the best on real images; in tables 3 and 4 {TITLES[best]} has {max(real[best]):.2f} "
            f"and ResNet-50 {max(real['resnet50']):.2f}."
        )
    accuracy = printed()["trained"]["resnet50"][3]
    yield f"ResNet-50's test accuracy is {text['resnet50']:.1f} in the text and {accuracy:.1f} in table 2."
    for name, known in printed()["listed"].items():
        if (clean := printed()["clean"][name]) != known:
            yield f"{TITLES[name]}'s clean accuracy is {clean:.2f} in the text and {known:.2f} in a public list."
    named = len(printed()["clean"])
    yield f"It says {text['targets']} targets and names {named}; the others are from public code of the same attack."
