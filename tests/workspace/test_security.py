"""What users hand over: nothing is executed, lies outside or is waited for; docs/security.md names the tests."""

import ast
import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import found_models
import helpers
import numpy as np
import picture_files
import pytest
import torch
from PIL import Image
from test_store import KEY, evidence
from torch import nn

from robustness import cards
from robustness.classifiers import checkpoints, exported, weights
from robustness.cli import common, main
from robustness.data import DataSpec, load, npz_cache
from robustness.data.decoding import Decoding, decode, inspect_image
from robustness.errors import CardError, DataError, ModelError, RobustnessError
from robustness.gate import baseline
from robustness.reporting.report_file import read_report
from robustness.workspace.store import Store

PAGE = helpers.ROOT / "docs" / "security.md"


def test_each_row_of_the_page_names_a_test_that_is_there():
    """Catches: a promise that nothing holds, and a test that was renamed away from its promise."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith(("| what |", "| where |", "| --- |"))]
    assert len(rows) >= 30
    for row in rows:
        (found,) = re.findall(r"`(test_\w+\.py)::(test_\w+)` \|$", row) or [("", row)]
        file, name = found
        assert file, name
        (path,) = (helpers.ROOT / "tests").rglob(file)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)


# ------------------------------------------------------------------ nothing is executed


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(PATH) (w) file closefile\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("start", [b"", b"\xc5\xd0\xd3\xc6" + b"\0" * 26])
def test_a_postscript_picture_is_never_run(tmp_path, monkeypatch, start):
    """Catches: Ghostscript started on a picture called x.png, in a folder, a table or a list of crops."""
    trace = tmp_path / "trace"
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    top = picture_files.folder(tmp_path / "set")
    (top / "cat" / "x.png").write_bytes(start + POSTSCRIPT.replace(b"PATH", str(trace).encode()))
    with pytest.raises(DataError, match=r"'cat/x.png': it is PostScript, a program, which is not executed"):
        picture_files.get(top)
    assert "PostScript" in inspect_image((top / "cat" / "x.png").read_bytes()).problem
    assert not trace.exists()


def test_formats_that_are_read_are_nine():
    """Catches: a decoder of a rare format that a file chooses by its first bytes."""
    image = picture_files.picture(1, (16, 16))
    for form in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"):
        assert inspect_image(picture_files.encoded(image, form)).problem == ""
    for form in ("pcx", "tga", "sgi", "ico", "dds", "eps", "pdf"):
        assert inspect_image(picture_files.encoded(image, form)).problem


def test_pictures_that_would_fill_the_memory():
    """Catches: a picture of a line that is enlarged to billions of pixels, and one that declares as many."""
    line = picture_files.encoded(Image.new("L", (60_000, 1)), "png")
    with pytest.raises(DataError, match=r"has 3,840,000 x 64 pixels|has [\d,]+ x [\d,]+ pixels before cropping"):
        decode(line, Decoding(resize=8192, size=(8, 8)))
    declared = bytearray(picture_files.encoded(Image.new("L", (8, 8)), "bmp"))
    declared[18:26] = (100_000).to_bytes(4, "little") * 2
    assert "too large to be decoded" in inspect_image(bytes(declared)).problem


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_runs_only_where_it_is_named(tmp_path):
    """Catches: a program loaded, or run, because a file of weights looks like one."""
    trace, writes = tmp_path / "trace", torch.jit.ScriptModule()
    writes.define(
        "def forward(self, x: Tensor) -> Tensor:\n"
        f"  return x.flatten(1)[:, :10] + torch.from_file({str(trace)!r}, True, 4).fill_(1.0).sum()\n"
    )
    writes.save(str(tmp_path / "model.pt"))  # once in this process: torch keeps what was defined
    for i, name in enumerate(("net.pt", "net.pth", "net.bin", "net.safetensors", "net.ckpt", "net")):
        shutil.copy(tmp_path / "model.pt", tmp_path / name)
        for read in (weights.read, lambda path: checkpoints.load_checkpoint(nn.Linear(2, 2), path)):
            with pytest.raises(ModelError, match=r"TorchScript file is a whole m|not a safetensors file|executing c"):
                read(tmp_path / name)
        with pytest.raises(CardError, match="must be 'module:callable'"):
            found_models.card(tmp_path / f"c{i}", f'factory = "{name}"', "seed = 0")
    module = exported.load("torchscript", tmp_path / "model.pt")
    assert not trace.exists()
    module(torch.zeros(1, 1, 4, 4))
    assert trace.exists(), "running a model trusts it, as the page says"


FORMS = [
    (torch.Tensor.to_sparse, "sparse"),
    (torch.Tensor.to_sparse_csr, "sparse"),
    (lambda weight: weight.to("meta"), "has no values"),
    (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "quantised"),
    (lambda weight: (weight * 10).to(torch.int8), "int8"),
    (lambda weight: weight.to(torch.complex64), "complex64"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("form", "said"), FORMS)
def test_weights_in_another_form_are_one_sentence(tmp_path, form, said):
    """Catches: torch's paragraphs, and int8 codes that are computed with as if they were weights."""
    module = nn.Linear(4, 3)
    before = module.weight.detach().clone()
    torch.save({"weight": form(before), "bias": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=rf"x\.pt: weight .*{said}"):
        checkpoints.load_checkpoint(module, tmp_path / "x.pt")
    assert torch.equal(module.weight, before)


def shortened(path, target):
    """Write an archive of torch's anew, whole in itself, with half of its largest tensor."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    largest = max((name for name, _ in members if "/data/" in name), key=lambda name: len(dict(members)[name]))
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members:
            archive.writestr(name, content[: len(content) // 2] if name == largest else content)


@pytest.mark.filterwarnings("ignore")
def test_a_tensor_is_no_larger_than_its_record(tmp_path):
    """PyTorch reads past the end of a short record. Catches: weights that are whatever lay there in memory."""
    state = nn.Linear(64, 10).state_dict()
    torch.save({"state_dict": state, "n": [torch.ones(3)]}, tmp_path / "whole.pt")
    checkpoints.load_checkpoint(nn.Linear(64, 10), tmp_path / "whole.pt")
    torch.save({"weight": state["weight"].half()[:5].repeat(2, 1), "bias": state["bias"]}, tmp_path / "views.pt")
    checkpoints.load_checkpoint(nn.Linear(64, 10), tmp_path / "views.pt")
    shortened(tmp_path / "whole.pt", tmp_path / "short.pt")
    with pytest.raises(ModelError, match=r"short\.pt: .*(larger than its data in the file holds|cannot be read)"):
        checkpoints.load_checkpoint(nn.Linear(64, 10), tmp_path / "short.pt")
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).save(str(tmp_path / "ts.pt"))
    exported.load("torchscript", tmp_path / "ts.pt")
    shortened(tmp_path / "ts.pt", tmp_path / "short-ts.pt")
    with pytest.raises(ModelError, match=r"short-ts\.pt: .*(larger than its data in the file|can be read)"):
        exported.load("torchscript", tmp_path / "short-ts.pt")


def test_a_damaged_arrow_table_is_not_read(tmp_path):
    """Arrow follows offsets without looking. Catches: a process that ends, or pixels of somebody else's memory."""
    pytest.importorskip("datasets")
    import fuzzed

    fuzzed.write_huggingface(tmp_path)
    (file,) = (tmp_path / "set").glob("*.arrow")
    content = file.read_bytes()
    sound = np.asarray(fuzzed._images(tmp_path, name="huggingface", folder="./set").pixels[np.arange(4)])
    refused = 0
    for start in range(0, len(content) - 8, 8):
        damaged = content[:start] + (2**40 + 1).to_bytes(8, "little") + content[start + 8 :]
        file.write_bytes(damaged)
        try:
            images = fuzzed._images(tmp_path, name="huggingface", folder="./set")
            assert np.asarray(images.pixels[np.arange(len(images))]).shape[1:] == sound.shape[1:]
        except DataError:
            refused += 1
    assert refused > 20


# ------------------------------------------------------------------ nothing outside


def test_commands_write_inside_the_project_alone(tmp_path, capsys):
    """Catches: a card whose baseline or weights a command writes somewhere else."""
    path = helpers.project(tmp_path / "p")
    path.write_text(path.read_text() + '\n[gate]\nkind = "retraining"\nbaseline = "../../outside.json"\n')
    one = cards.load(path)
    with pytest.raises(CardError, match=r"outside\.json, which is outside of its project"):
        one.check_written(one.baseline)
    one.check_written(path.parent.parent / "baselines" / "x.json")
    arguments = ["baseline", "accept", "--model", "tiny", "--seeds", "0,1", "--card", str(path)]
    assert main.main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert "which is outside of its project" in capsys.readouterr().err
    assert not (tmp_path / "outside.json").exists()


def test_shards_lie_beside_their_index(tmp_path):
    """Catches: an index of shards that has another folder's file read."""
    (tmp_path / "x").mkdir()
    for place in ("../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ""):
        (tmp_path / "x" / "m.index.json").write_text(json.dumps({"weight_map": {"w": place}}))
        with pytest.raises(ModelError, match=r"must be a file beside it|no such weights file"):
            checkpoints.load_checkpoint(nn.Linear(2, 2), tmp_path / "x" / "m.index.json")


def test_keys_of_a_report_are_no_paths(tmp_path):
    with pytest.raises(RobustnessError, match="must consist of letters and digits"):
        Store(tmp_path).path("evidence", "../../../etc/passwd")


def test_cards_that_differ_by_capitals_alone(tmp_path, capsys):
    """Catches: two models in one file, where a file system does not tell capitals."""
    path = helpers.project(tmp_path / "p")
    path.with_name("b.toml").write_text(path.read_text().replace('"tiny"', '"Tiny"'))
    assert main.main(["sweep", "--card", str(path.parent), "--store", str(tmp_path / "store")]) == 2
    assert "differs by capitals alone from" in capsys.readouterr().err


# ------------------------------------------------------------------ sizes and counts


def test_declared_sizes_are_held_to_the_room_there_is(tmp_path, monkeypatch):
    """Catches: a small archive that fills the disk before it is refused."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(5_000_000))
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="needs 5,000,000 bytes, but only 1,000,000 are free"):
        npz_cache.memory_mapped_arrays(tmp_path / "bomb.npz", tmp_path / "cache")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == 0


# ------------------------------------------------------------------ what is no file, too deep, too long, unreadable


def loaded(path, **table):
    spec = DataSpec.model_validate(table)
    return load(spec, "test", root=path.parent, cache=path.parent / "cache", beside=path.parent)


def shards(path):
    return checkpoints.load_checkpoint(nn.Linear(2, 2), path)


READERS = {
    "card.toml": cards.load,
    "net.pt": shards,
    "m.index.json": shards,
    "ts.pt": lambda path: exported.load("torchscript", path),
    "images.npz": lambda path: loaded(path, name="array", file=f"./{path.name}"),
    "a.parquet": lambda path: loaded(path, name="parquet", file=f"./{path.name}"),
    "set/cat/x.png": lambda path: loaded(path.parents[1], name="folder", folder="./set", images={"size": [8, 8]}),
    "run.json": read_report,
    "b.json": baseline.read,
}


@contextlib.contextmanager
def special(kind, path):
    """Put what is no file there: a pipe, a socket, a device, a folder, or a link to one of these."""
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # a socket's path is short
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                server.bind(path.name)
            case "device":
                path.symlink_to("/dev/zero")
            case "folder":
                path.mkdir()
        yield


@pytest.mark.parametrize("what", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_said(tmp_path, name, what):
    """Catches: a run that waits for a pipe for ever, fills the memory from a device, or ends in a traceback."""
    picture_files.folder(tmp_path / "set")
    path = tmp_path / name
    with special(what, path):
        if (path.suffix, what) == (".png", "folder"):
            assert len(READERS[name](path)) == 5
            return
        with pytest.raises(RobustnessError, match=f"it is a {what}|is a link to /dev/zero"):
            READERS[name](path)


DEEP = {"list": "[" * 2000 + "]" * 2000, "table": '{"x":' * 2000 + "1" + "}" * 2000}


@pytest.mark.parametrize("name", ["m.index.json", "run.json", "b.json"])
@pytest.mark.parametrize("form", DEEP)
def test_deep_json_is_one_sentence(tmp_path, name, form):
    """Catches: a RecursionError of Python's own parser."""
    (tmp_path / name).write_text(DEEP[form])
    with pytest.raises(RobustnessError, match=r"nested more than 64 levels deep|not a baseline"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize(
    "line",
    [
        f"arguments = {{ x = {'[' * 200 + ']' * 200} }}",
        f"arguments = {{ x = {'[' * 5000 + ']' * 5000} }}",
        ".".join("a" * 500) + " = 1",
        f"seed = {'9' * 5000}",
        f'weights = "{"x" * 20_000}"',
        f'weights = "{"x/" * 10_000}"',
        'weights = "a\\u0000b"',
        f"{'k' * 20_000} = 1",
        f"entry = {{ {'x' * 20_000} = 1 }}",
    ],
)
def test_cards_that_go_on_for_ever_are_one_sentence(tmp_path, line):
    """Catches: a RecursionError, a ValueError of Python's own, a sentence of 20,000 characters."""
    with pytest.raises(CardError) as caught:
        found_models.card(tmp_path, 'factory = "net:factory"', line, net=helpers.MODULE)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "option", ["store", "data", "card", "weights", "report", "factory", "dataset", "model", "profile"]
)
@pytest.mark.parametrize("value", ["x" * 20_000, "a\nb", "~nobody-of-that-name/x"])
def test_options_that_cannot_be_are_one_sentence(project, option, value):
    run = project.plain(f"--robustness-{option}={value}", "suites", "--collect-only", "-q")
    assert "Traceback" not in run.out + run.err
    assert "INTERNALERROR" not in run.out + run.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user")
def test_an_unreadable_file_is_one_sentence():
    """As another user, for root may read everything."""
    code = """
import os, sys
from pathlib import Path
from robustness import cards
from robustness.errors import RobustnessError
here = Path(sys.argv[1])
(here / "x.toml").write_text('name = "a"')
(here / "x.toml").chmod(0)
os.setuid(54321)
try:
    cards.load(here / "x.toml")
except RobustnessError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        assert helpers.run(code, folder).startswith(f"{folder}/x.toml: not a readable TOML file: ")
        assert "Permission denied" in helpers.run(code, folder)


# ------------------------------------------------------------------ what is printed


def test_names_command_no_terminal_and_no_ci(tmp_path, capsys):
    """Catches: a class called `::error`, or one that clears the screen, in what `evidence show` prints."""
    store = Store(tmp_path)
    bad = "\n::error title=x::y\r\x1b[2J##[set-output name=x]z\u202e"
    one = evidence(label=f"tiny:{bad}", sources={bad: "0"}, notes={"::set-output name=a::b": bad})
    store.write(
        store.path("evidence", KEY),
        replace(one, classes=(bad, "::warning::b"), predictions=np.zeros((1, 2), np.int32)).to_bytes(),
    )
    assert main.main(["evidence", "show", KEY[:6], "--store", str(tmp_path)]) == 0
    assert main.main(["evidence", "list", "--store", str(tmp_path)]) == 0
    common.say(bad)
    said = capsys.readouterr()
    for line in (said.out + said.err).split("\n"):
        assert line.isprintable() or not line
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_a_model_commands_no_ci(project):
    """Catches: an error that a model chooses the text of, printed at the start of a line."""
    project.edit(project.net, ('    log("modules")\n', '    raise ValueError("x\\n::error::stolen\\n##[group]y")\n'))
    run = project.plain("suites")
    assert run.ret == 1
    assert "stolen" in run.out
    lines = [line for line in (run.out + run.err).splitlines() if not line.startswith("E ")]
    assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line]
