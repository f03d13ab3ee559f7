"""Evidence: what is written is what is read, or nothing is."""

import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness.errors import StoreError
from robustness.metrics.evidence import OK, OUTCOMES, RAISED, Evidence


def make(strengths=("0.1", "1"), n=3, seed=0, **changes):
    """Evidence with random outcomes, infinities and NaN among them."""
    random = np.random.default_rng(seed)
    shape = (len(strengths), n)
    floats = {name: random.standard_normal(shape).astype(np.float32) for name in OUTCOMES[1:]}
    floats["snr"][0, 0], floats["loss"][-1, -1] = np.inf, np.nan
    given = {
        "labels": random.integers(0, 2, n).astype(np.int32),
        "classes": ("a", "ü"),
        "strengths": strengths,
        "predictions": random.integers(-1, 2, shape).astype(np.int32),
        "status": (OK,) * len(strengths),
        "provenance": {"key": "ab", "notes": {"1": "ε"}, "seconds": 0.25},
    }
    return Evidence(**{**given, **floats, **changes})


def assert_equal(one, other):
    """Every field, every bit."""
    for field in dataclasses.fields(Evidence):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes(), field.name
        else:
            assert a == b, field.name
    assert one.digest == other.digest


TEXT = st.text('aε"\\ 0.\n', max_size=6)
SMALL = make(n=2, drawn=np.ones((2, 2), np.float32))
BYTES = SMALL.to_bytes()


def believed(content):
    """Read a file that may be damaged: either it is refused, or it says exactly what was written."""
    try:
        evidence = Evidence.from_bytes(content)
    except StoreError:
        return False
    assert_equal(evidence, SMALL)
    return True


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 20),
    strengths=st.lists(TEXT, min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 1000),
    probabilities=st.booleans(),
    drawn=st.booleans(),
    status=TEXT,
)
def test_what_is_written_is_read(n, strengths, seed, probabilities, drawn, status):
    random, shape = np.random.default_rng(seed), (len(strengths), n)
    evidence = make(
        tuple(strengths),
        n,
        seed,
        status=(status,) * len(strengths),
        probabilities=random.random((*shape, 2), dtype=np.float32) if probabilities else None,
        drawn=random.random(shape, dtype=np.float32) if drawn else None,
    )
    assert_equal(Evidence.from_bytes(evidence.to_bytes()), evidence)


def test_a_file_that_is_cut_anywhere_is_refused():
    assert believed(BYTES)
    assert not any(believed(BYTES[:length]) for length in range(len(BYTES)))
    assert not believed(BYTES + b"\0")


def test_a_file_in_which_any_bit_is_flipped_is_refused():
    """Every bit of length, header and arrays; but for the case of a digit of \\u00fc, which says the same."""
    harmless = []
    for position in range(len(BYTES)):
        for bit in range(8):
            content = bytearray(BYTES)
            content[position] ^= 1 << bit
            if believed(bytes(content)):
                harmless.append(content[position : position + 1].decode())
    assert "".join(harmless).lower() in ("", "f", "c", "fc")


@settings(deadline=None, max_examples=100)
@given(
    start=st.integers(0, len(BYTES) - 1),
    content=st.one_of(st.binary(min_size=1, max_size=40), st.integers(1, 300).map(bytes)),
)
def test_a_file_of_which_a_block_was_lost_is_refused(start, content):
    torn = BYTES[:start] + content + BYTES[start + len(content) :]
    assert believed(torn) is (torn == BYTES)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def archive(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_a_pickle_is_never_opened(tmp_path):
    fuse = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(fuse))
    pickle.loads(bomb)
    assert fuse.exists(), "else this shows nothing"
    fuse.unlink()
    size = len(bomb).to_bytes(8, "little")
    objects = np.array([Bomb(fuse)], dtype=object)
    for content in (bomb, size + bomb, BYTES[:8] + bomb, archive(labels=objects), BYTES + bomb):
        assert not believed(content)
    assert not fuse.exists()


def header(**changes):
    """The file with another header."""
    size = int.from_bytes(BYTES[:8], "little")
    head = json.loads(BYTES[8 : 8 + size])
    metadata = head["__metadata__"] | changes
    head["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + BYTES[8 + size :]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "truncated or foreign"),
        (b"\0" * 100, "truncated or foreign"),
        ((2).to_bytes(8, "little") + b"{}", "truncated or foreign"),
        ((10**7).to_bytes(8, "little") + b"[" * 10**7, "truncated or foreign"),
        (safetensors.numpy.save({"labels": np.zeros(2)}), "truncated or foreign"),
        (safetensors.numpy.save({"labels": np.zeros(2)}, metadata={"format": "pt"}), r"another format \(pt\)"),
        (archive(labels=np.zeros(2)), "truncated or foreign"),
        (header(format="pytest-robustness/evidence/2"), r"another format \(pytest-robustness/evidence/2\)"),
        (header(format=None), "truncated or foreign"),
        (header(checksum=None), "truncated or foreign"),
        (header(checksum="0" * 64), "checksum does not match"),
        (header(status='["ok", "raised E"]'), "checksum does not match"),
        (header(strengths='["0.1", "0.2"]'), "checksum does not match"),
        (header(classes='["a", "b"]'), "checksum does not match"),
        (header(provenance='{"key": "cd"}'), "checksum does not match"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_evidence_says_why(content, why):
    with pytest.raises(StoreError, match=why):
        Evidence.from_bytes(content)


def test_outcomes_make_the_digest_and_provenance_does_not():
    one = make()
    assert make().digest == one.digest
    assert dataclasses.replace(one, provenance={"seconds": 3}).digest == one.digest
    others = [dataclasses.replace(one, status=(OK, "raised E")), dataclasses.replace(one, classes=("a", "b"))]
    others += [dataclasses.replace(one, strengths=("0.1", "2"))]
    for name in ("labels", *OUTCOMES):
        array = getattr(one, name).copy()
        array.flat[1] += 1
        others.append(dataclasses.replace(one, **{name: array}))
    others.append(dataclasses.replace(one, drawn=np.zeros((2, 3), np.float32)))
    others.append(dataclasses.replace(one, predictions=one.predictions.view(np.float32)))  # the same bytes
    assert len({evidence.digest for evidence in [one, *others]}) == len(others) + 1


def test_rows_have_the_names_of_strengths():
    evidence = make()
    assert (evidence.index("0.1"), evidence.index("1")) == (0, 1)
    assert len(evidence) == 3
    with pytest.raises(KeyError, match=r"`strength` must be one of 0\.1, 1, got 0\.3"):
        evidence.index("0.3")


@pytest.mark.parametrize(("status", "failed"), [("raised E: x", True), ("non-finite logits", False), (OK, False)])
def test_failed_is_where_code_raised(status, failed):
    assert make(status=(OK, status)).failed is failed
    assert RAISED == "raised "


def test_strength_zero_is_taken_from_the_clean_entry():
    swept = make(status=(OK, "raised E"))
    clean = make(("0",), seed=1, labels=swept.labels, status=("non-finite logits",))
    both = swept.with_clean(clean, ("1", "0", "0.1"))
    assert both.strengths == ("1", "0", "0.1")
    assert both.status == ("raised E", "non-finite logits", OK)
    for name in OUTCOMES:
        one, other = getattr(swept, name), getattr(clean, name)
        assert np.array_equal(getattr(both, name), [one[1], other[0], one[0]], equal_nan=True)
    assert both.provenance == swept.provenance
    assert both.drawn is None
    assert swept.with_clean(clean, ("1",)).strengths == ("1",)


def test_a_zero_of_its_own_is_not_replaced():
    """Zero decibels are a strength like any other."""
    swept = make(("0", "10"))
    clean = make(("0",), seed=1, labels=swept.labels)
    both = swept.with_clean(clean, ("10", "0"))
    assert np.array_equal(both.predictions, swept.predictions[::-1])


def test_drawn_strengths_and_probabilities_come_along():
    random = np.random.default_rng(0)
    drawn, kept = random.random((2, 3)).astype(np.float32), random.random((2, 3, 2)).astype(np.float32)
    swept = make(drawn=drawn, probabilities=kept)
    clean = make(("0",), seed=1, labels=swept.labels, probabilities=kept[:1] + 1)
    both = swept.with_clean(clean, ("0", "1"))
    assert np.array_equal(both.drawn, [np.zeros(3), drawn[1]])
    assert np.array_equal(both.probabilities, [kept[0] + 1, kept[1]])
    assert swept.with_clean(make(("0",), labels=swept.labels), ("0", "1")).probabilities is None


def test_evidence_of_other_images_does_not_fit():
    swept = make()
    with pytest.raises(ValueError, match="`clean` must be evidence on the same images"):
        swept.with_clean(make(("0",), labels=1 - swept.labels), ("0", "1"))
    with pytest.raises(KeyError, match=r"got 0\.7"):
        swept.with_clean(make(("0",), labels=swept.labels), ("0", "0.7"))
