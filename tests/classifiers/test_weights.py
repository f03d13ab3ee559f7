"""Weights files: read without executing code, and not believed when damaged."""

import json
import pickle
import re
from pathlib import Path

import helpers
import pytest
import safetensors.torch
import torch
from torch import nn

from robustness.classifiers import weights
from robustness.errors import ModelError


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, fuse):
        self.fuse = fuse

    def __reduce__(self):
        return Path.touch, (self.fuse,)


def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights.to_bytes(state(), {"recipe": "ab", "seed": "3"}))
    return path


def assert_same(got, due):
    assert set(got) == set(due)
    for name, tensor in due.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


def test_what_is_written_is_read(file):
    assert_same(weights.read(file), state())
    weights.verify_checksum(file)
    told = weights.metadata(file)
    assert told == {"recipe": "ab", "seed": "3", "checksum": weights.checksum(state())}


@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64", "float8_e4m3fn"],
)
def test_every_type_is_verified_without_torch_as_with_it(tmp_path, dtype):
    """bfloat16 is none of NumPy's types."""
    dtype = getattr(torch, dtype)
    path = tmp_path / "w.safetensors"
    tensors = {
        "a": torch.arange(6).view(2, 3).to(dtype),
        "empty": torch.zeros(0, 2, dtype=dtype),
        "0": torch.ones((), dtype=dtype),
    }
    path.write_bytes(weights.to_bytes(tensors, {}))
    weights.verify_checksum(path)
    got = weights.read(path)
    assert all(got[name].dtype == dtype and got[name].shape == tensor.shape for name, tensor in tensors.items())


def test_tensors_that_share_memory_are_written(tmp_path):
    """Tied layers, and views that are not contiguous."""
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    tensors = {**tied.state_dict(), "turned": tied[0].weight.T, "row": tied[0].weight[1]}
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights.to_bytes(tensors, {}))
    assert_same(weights.read(path), {name: tensor.detach() for name, tensor in tensors.items()})


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("form", ["bare", "in a torch file", "beside weights"])
def test_a_pickle_does_not_run(tmp_path, suffix, form):
    path, fuse = tmp_path / f"w{suffix}", tmp_path / "ran"
    match form:
        case "bare":
            path.write_bytes(pickle.dumps(Bomb(fuse)))
        case "in a torch file":
            torch.save(Bomb(fuse), path)
        case "beside weights":
            torch.save({**state(), "extra": Bomb(fuse)}, path)
    for read in (weights.read, weights.verify_checksum, weights.metadata):
        if read is weights.metadata and suffix != ".safetensors":
            continue
        with pytest.raises(ModelError, match=re.escape(str(path))):
            read(path)
    assert not fuse.exists()
    if form == "bare":
        pickle.loads(path.read_bytes())
        assert fuse.exists(), "else this shows nothing"


@pytest.mark.parametrize(
    "saved", [nn.Linear(2, 2), [torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}}, torch.zeros(2), {"a": 1}]
)
def test_what_is_not_tensors_by_name_is_refused(tmp_path, saved):
    path = tmp_path / "w.pt"
    torch.save(saved, path)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        weights.read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="there is no such weights file"):
        weights.read(tmp_path / "w.pt")
    with pytest.raises(ModelError, match="not a safetensors file"):
        weights.verify_checksum(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(state(), path)
    else:
        path.write_bytes(weights.to_bytes(state(), {}))
    whole = path.read_bytes()
    for length in range(0, len(whole), 1 if suffix == ".safetensors" else 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            weights.read(path)
        if suffix == ".safetensors":
            with pytest.raises(ModelError):
                weights.verify_checksum(path)


def test_any_bit_of_the_tensors_counts(file):
    """Catches: a bit that a disk lost; tensors that somebody loads, changes and saves, header and all."""
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    edited = [safetensors.torch.save({**state(), "0.bias": torch.zeros(2)}, weights.metadata(file))]
    for position in range(start, len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        edited.append(content)
    for content in edited:
        file.write_bytes(content)
        for check in (weights.read, weights.verify_checksum):
            with pytest.raises(ModelError, match="do not fit its checksum"):
                check(file)


def test_any_bit_of_the_header_counts_or_changes_no_tensor(file):
    """What the file says of its recipe is not under the checksum; a wrong word there means training anew."""
    whole = file.read_bytes()
    for position in range(8 + int.from_bytes(whole[:8], "little")):
        content = bytearray(whole)
        content[position] ^= 1 << position % 7
        file.write_bytes(content)
        try:
            weights.verify_checksum(file)
        except ModelError:
            continue
        assert_same(weights.read(file), state())


def test_foreign_files_are_read_but_not_verified(tmp_path):
    """Without a checksum there is nothing to compare: good for a card's weights, not for the store."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.torch.save(state()))
    torch.save(state(), tmp_path / "w.pt")
    for file in (path, tmp_path / "w.pt"):
        assert_same(weights.read(file), state())
        assert weights.metadata(file) == {}
    with pytest.raises(ModelError, match="checksum"):
        weights.verify_checksum(path)


@pytest.mark.parametrize(
    "head", [b"[]", b"null", b'{"__metadata__": null}', b'{"__metadata__": [1]}', b"{", b"[" * 10**5]
)
def test_a_header_that_is_none(tmp_path, head):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(ModelError, match="not a safetensors file"):
        weights.metadata(path)
    for huge in (b"\xff" * 8, b"\0" * 3, b""):
        path.write_bytes(huge)
        with pytest.raises(ModelError):
            weights.metadata(path)


def test_reading_the_header_is_all_that_metadata_does(file):
    content = file.read_bytes()
    file.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
    assert weights.metadata(file)["recipe"] == "ab"


def test_weights_of_another_architecture_are_listed_five_of_each_and_none_is_loaded():
    """Catches: a module that is half loaded."""
    module = nn.ModuleDict({f"m{i}": nn.Linear(2, 2, bias=i < 7) for i in range(14)})
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other = {f"m{i}.weight": torch.zeros(3 - i // 6, 2) for i in range(8)}
    other |= {f"extra{i}": torch.zeros(1) for i in range(6)}
    with pytest.raises(ModelError) as caught:
        weights.load_into(module, other, Path("w.pt"))
    assert str(caught.value) == (
        "w.pt: these are weights of another architecture: "
        "missing: m0.bias, m1.bias, m2.bias, m3.bias, m4.bias and 8 more; "
        "unexpected: extra0, extra1, extra2, extra3, extra4 and 1 more; of another shape: "
        + ", ".join(f"m{i}.weight (3, 2) instead of (2, 2)" for i in range(5))
        + " and 1 more"
    )
    assert_same(module.state_dict(), before)


def test_verifying_needs_no_torch(file):
    code = (
        "import sys; from pathlib import Path; from robustness.classifiers import weights\n"
        "path = Path(sys.argv[1]); weights.verify_checksum(path)\n"
        "print(weights.metadata(path)['seed'], 'torch' in sys.modules)"
    )
    assert helpers.run(code, file) == "3 False\n"


def test_the_content_is_that_of_the_tensors(tmp_path, file):
    """What stands beside them, and the order in which they were written, does not count; of other files all does."""
    first = weights.content_hash(file)
    assert first == weights.metadata(file)["checksum"]
    file.write_bytes(weights.to_bytes(dict(reversed(state().items())), {"seconds": "7"}))
    assert weights.content_hash(file) == first
    file.write_bytes(weights.to_bytes({**state(), "0.bias": torch.zeros(2)}, {}))
    assert weights.content_hash(file) != first
    other, again = tmp_path / "w.pt", tmp_path / "again.pt"
    torch.save(state(), other)
    again.write_bytes(other.read_bytes() + b"\0")
    assert len({first, weights.content_hash(other), weights.content_hash(again)}) == 3


def test_the_checksum_is_of_names_types_shapes_and_values():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4), "b": torch.tensor([1.0, 2.0])},
        {"a": torch.zeros(4)},
        {"a": -torch.zeros(4), "b": torch.ones(2)},
    ]
    sums = {weights.checksum(tensors) for tensors in (base, *others)}
    assert len(sums) == len(others) + 1
    assert weights.checksum(dict(reversed(base.items()))) == weights.checksum(base)
    assert re.fullmatch(r"[0-9a-f]{64}", json.loads(json.dumps(weights.checksum({}))))
