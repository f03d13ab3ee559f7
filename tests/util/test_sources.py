"""Which files stand behind a module: found from the text, named relative to the project, never by importing."""

import hashlib
import sys
import textwrap

import helpers
import pytest

from robustness.util import source_files, syntax
from robustness.util.source_files import (
    ImportClosure,
    changed_files,
    content_hash,
    defines_name,
    distribution_versions,
    find_module_file,
    hash_files,
    is_installed,
    sha256_file,
)


@pytest.fixture
def closure(tmp_path):
    """Write files; give a function that tells the closure of a module of them."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def of(*modules):
        return ImportClosure(modules, [str(tmp_path), *sys.path])

    of.write = write
    of.root = tmp_path
    return of


EXPLODES = "raise SystemExit('was imported')\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import other", {"other"}),
        ("import other as o, third", {"other", "third"}),
        ("import pack.deep.leaf", {"pack", "pack.deep", "pack.deep.leaf"}),
        ("from pack.deep import leaf", {"pack", "pack.deep", "pack.deep.leaf"}),
        ("from pack.deep.leaf import value", {"pack", "pack.deep", "pack.deep.leaf"}),
        ("from pack import *", {"pack"}),
        ("def f():\n    import other", {"other"}),
        ("class C:\n    def f(self):\n        from pack import side", {"pack", "pack.side"}),
        ("try:\n    import other\nexcept ImportError:\n    import third", {"other", "third"}),
        ("if False:\n    import other", {"other"}),
        ("async def f():\n    import other", {"other"}),
        ("x = lambda: __import__('other')", set()),
        ("# import other\n'import third'", set()),
        ("import not_there, not_there.either\nfrom not_there import nothing", set()),
        ("import os, json, sys, collections.abc, xml.dom\nfrom concurrent import futures", set()),
    ],
)
def test_imports_wherever_they_stand(closure, text, found):
    closure.write(
        **{"main": text, "other": "", "third": "", "pack/__init__": "", "pack/side": "", "pack/deep/__init__": "",
           "pack/deep/leaf": "value = 1"},
    )  # fmt: skip
    assert set(closure("main").files) == {"main"} | found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from . import c", {"p.a.b.c"}),
        ("from .c import x", {"p.a.b.c"}),
        ("from .. import c", {"p.a.c"}),
        ("from ..c import x", {"p.a.c"}),
        ("from ... import c", {"p.c"}),
        ("from ...c import x", {"p.c"}),
        ("from ...other.c import x", {"p.other", "p.other.c"}),
        ("from .... import c", set()),
        ("from . import *", set()),
    ],
)
@pytest.mark.parametrize("inside", ["p/a/b/m", "p/a/b/__init__"])
def test_relative_imports_up_to_three_levels(closure, text, found, inside):
    packages = ["p", "p.a", "p.a.b"]
    closure.write(
        **{f"{folder}/__init__": "" for folder in ("p", "p/a", "p/a/b", "p/other")},
        **{f"{folder}/c": "" for folder in ("p", "p/a", "p/a/b", "p/other")},
        c=EXPLODES,
    )
    closure.write(**{inside: text})
    module = "p.a.b" if inside.endswith("__init__") else "p.a.b.m"
    assert set(closure(module).files) == {*packages, module} | found


CHAINS = {
    "all that is reached": (
        {"main": "from net import layers", "unrelated": "import main", "net/__init__": "from .blocks import Block",
         "net/layers": "import helper", "net/blocks": "", "helper": ""},
        {"main", "net", "net.layers", "net.blocks", "helper"},
    ),
    # Importing ``top.middle.leaf`` runs top/__init__.py though middle has none.
    "a package above a folder without init": (
        {"main": "import top.middle.leaf", "top/__init__": "import other", "top/middle/leaf": "", "other": ""},
        {"main", "top", "top.middle.leaf", "other"},
    ),
    "a circle": (
        {"main": "import b, main, p", "b": "from c import x", "c": "def f():\n    import main",
         "p/__init__": "from p import q", "p/q": "import p"},
        {"main", "b", "c", "p", "p.q"},
    ),
    "a long chain": (
        {"main": "import m0", **{f"m{i}": f"import m{i + 1}" for i in range(250)}},
        {"main", *(f"m{i}" for i in range(250))},
    ),
    # Where warnings are errors, a backslash too many would otherwise be a file that is not Python.
    "what Python warns of": ({"main": "pattern = '\\d'\nimport other", "other": ""}, {"main", "other"}),
    # The harness's version is that of its semantics.
    "the harness": (
        {"main": "from robustness.util.rng import Purpose\nimport robustness\nimport robustness_of_mine",
         "robustness_of_mine": ""},
        {"main", "robustness_of_mine"},
    ),
    # The project comes first on the path, so this is what is imported, unless Python's was before.
    "a file that hides one of Python": ({"main": "import this, antigravity", "this": "x = 1"}, {"main", "this"}),
}  # fmt: skip


@pytest.mark.parametrize(("files", "found"), CHAINS.values(), ids=CHAINS)
def test_everything_behind_it_and_nothing_else(closure, files, found):
    """Catches: a walk that stops early, never ends, or leaves the project."""
    closure.write(**files)
    assert set(closure("main").files) == found
    assert closure("main").packages == set()


def test_namespaces_in_namespaces(closure):
    closure.write(
        **{"main": "from space.inner import leaf", "space/inner/leaf": "from . import twin", "space/inner/twin": ""}
    )
    assert set(closure("main").files) == {"main", "space.inner.leaf", "space.inner.twin"}
    assert find_module_file("space.inner.leaf", [str(closure.root)]) == closure.root / "space/inner/leaf.py"
    assert find_module_file("space.inner", [str(closure.root)]) is None
    assert find_module_file("space.other.leaf", [str(closure.root)]) is None


@pytest.mark.parametrize(
    "content",
    [b"def f(:\n", b"\xff\xfe nothing", b"import other\0", b"(" * 500 + b")" * 500, b"x = '\\d'\nimport other\n"],
)
def test_a_file_that_is_not_python_is_listed_itself(closure, content):
    """It may never be imported; if it is, importing it says what is wrong. Nor are warnings about it ours to raise."""
    closure.write(main="try:\n    import bad\nexcept Exception:\n    import good", good="", other="")
    (closure.root / "bad.py").write_bytes(content)
    assert {"main", "bad", "good"} <= set(closure("main").files) <= {"main", "bad", "good", "other"}


def test_nothing_is_imported(closure):
    closure.write(main="import other", other=EXPLODES, **{"pack/__init__": EXPLODES, "pack/leaf": EXPLODES})
    before = set(sys.modules)
    assert set(closure("main", "pack.leaf").files) == {"main", "other", "pack", "pack.leaf"}
    assert set(sys.modules) == before


def test_installed_modules_are_named_and_not_followed(closure):
    site = closure.root / "lib" / "site-packages"
    closure.write(
        main="import numpy as np\nfrom torch.nn import functional\nimport far.away",
        **{
            "lib/site-packages/far/__init__": "import hidden",
            "lib/site-packages/far/away": "import hidden",
            "hidden": "",
        },
    )
    found = ImportClosure(["main"], [str(closure.root), str(site), *sys.path])
    assert set(found.files) == {"main"}
    assert found.packages == {"numpy", "torch", "far"}
    assert is_installed(site / "far" / "away.py")
    assert not is_installed(closure.root / "main.py")


@pytest.mark.parametrize(
    ("text", "by_name"),
    [
        ("import importlib", True),
        ("from importlib import import_module", True),
        ("__import__('x')", True),
        ("def f():\n    exec('import x')", True),
        ("import pkgutil", True),
        ("model.eval()\nself.exec = 1", False),
        ("from . import importlib", False),
        ("import torch", False),
    ],
)
def test_importing_by_name_is_noticed(closure, text, by_name):
    closure.write(main="import other", other=text)
    assert closure("main").by_name is by_name


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("def net(): ...", True),
        ("async def net(): ...", True),
        ("class net: ...", True),
        ("net = 1", True),
        ("net = '\\d'", True),
        ("net: int = 1", True),
        ("other, (net, *rest) = 1, (2, 3)", True),
        ("from elsewhere import net", True),
        ("from elsewhere import other as net", True),
        ("import net", True),
        ("import net.inner", True),
        ("if x:\n    pass\nelse:\n    def net(): ...", True),
        ("try:\n    import x\nexcept ImportError:\n    net = None", True),
        ("try:\n    pass\nfinally:\n    net = None", True),
        ("with x:\n    net = 1", True),
        ("for i in x:\n    net = 1", True),
        ("match x:\n    case 1:\n        net = 1", True),
        ("from elsewhere import *", True),
        ("def __getattr__(name): ...", True),
        ("def f():\n    net = 1", False),
        ("class C:\n    net = 1", False),
        ("x.net = 1", False),
        ("import other as x, net as y", False),
        ("# net", False),
        ("", False),
    ],
)
def test_names_at_the_top_level(tmp_path, text, known):
    file = tmp_path / "m.py"
    file.write_text(text)
    assert defines_name(file, "net") is known


@pytest.mark.parametrize("content", [b"def", b"\xff", b"x = 1\0"])
def test_names_of_a_file_that_is_not_python(tmp_path, content):
    file = tmp_path / "m.py"
    file.write_bytes(content)
    with pytest.raises(SyntaxError):
        defines_name(file, "net")


def test_a_project_that_moved_has_the_same_names_and_hashes(tmp_path):
    told = []
    for home in ("here", "there/deep"):
        root = tmp_path / home
        helpers.project(root, **{"package.__init__": "", "package.net": "from . import part", "package.part": "x = 1"})
        closure = ImportClosure(["package.net"], [str(root), *sys.path])
        told.append(hash_files(closure.files.values(), root))
    assert told[0] == told[1]
    assert list(told[0]) == ["package/__init__.py", "package/net.py", "package/part.py"]


def test_changes_are_named_and_files_elsewhere_by_their_path(tmp_path):
    home, far = tmp_path / "home", tmp_path / "far.py"
    (home / "sub").mkdir(parents=True)
    for file in (home / "a.py", home / "sub" / "b.py", far):
        file.write_text("x = 1")
    recorded = hash_files([far, home / "sub" / "b.py", home / "a.py"], home)
    assert set(recorded) == {"a.py", "sub/b.py", str(far)}
    assert changed_files(recorded, home) == []
    (home / "a.py").write_text("x = 2")
    (home / "sub" / "b.py").unlink()
    (home / "sub" / "b.py").mkdir()
    far.unlink()
    assert set(changed_files(recorded, home)) == set(recorded)


NET = """
from robustness.classifiers.modules import lay_out
from torch import nn

SIZES = {"small": (8, 16), **{}}


def net(width: int = 8, *, deep: bool = False) -> nn.Module:
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(3 if deep else 1)], lay_out(f"{width!r:>4}"))
"""


@pytest.mark.parametrize(
    "text",
    [
        "# A note.\n" + NET.replace("    return", "    # Why.\n    return"),
        '"""Networks."""\n' + NET.replace("    return", '    """Build one."""\n    return'),
        NET.replace("16), **{}}", "16),\n         **{},}\n'''By name.'''"),
        NET.replace("\n", "\r\n"),
        NET.replace("robustness.classifiers.modules", "robustness.elsewhere.modules"),
        NET.replace("from robustness", "from torch import nn\nfrom robustness", 1).replace(
            "out\nfrom torch import nn", "out"
        ),
    ],
    ids=["comments", "docstrings", "layout", "line ends", "a module of the harness that moved", "order of its import"],
)
def test_what_changes_nothing_keeps_the_hash(tmp_path, text):
    """Catches: a comment in the code of a recipe by which all weights are older than it."""
    for name, content in (("a.py", NET), ("b.py", text)):
        (tmp_path / name).write_text(content, newline="")
    assert content_hash(tmp_path / "a.py") == content_hash(tmp_path / "b.py")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("= 8,", "= 9,"),
        ('"small"', '"large"'),
        ("*, deep", "deep"),
        ("if deep", "if not deep"),
        (">4", ">5"),
        ("!r", "!s"),
        ("**{}", "**{'small': 1}"),
        ("import lay_out", "import channels_last as lay_out"),
        ("from torch import nn", "import torch.nn as nn"),
        ("    return", "    nn.init\n    return"),
        ("SIZES =", "SIZES: dict ="),
    ],
)
def test_what_may_change_something_changes_the_hash(tmp_path, before, after):
    """Catches: a hash that leaves out fields, operators, constants or what a name is imported as."""
    assert NET.count(before) >= 1
    for name, content in (("a.py", NET), ("b.py", NET.replace(before, after, 1))):
        (tmp_path / name).write_text(content)
    assert content_hash(tmp_path / "a.py") != content_hash(tmp_path / "b.py")


def test_code_as_deep_as_python_reads_has_a_hash_that_no_stack_decides(tmp_path):
    """Catches: a recursion that ends earlier where more functions are on the stack, and another hash from there on."""
    file = tmp_path / "deep.py"
    file.write_text("x = " + "+".join("1" * 900))

    def below(frames):
        return content_hash(file) if not frames else below(frames - 1)

    shallow = below(0)
    syntax.meaning.cache_clear()
    assert below(200) == shallow


def test_hashes_of_other_files_are_of_their_bytes(tmp_path):
    for name, content in (("m.txt", b"x = 1\r\n"), ("not-python.py", b"def"), ("null.py", b"x = 1\0")):
        file = tmp_path / name
        file.write_bytes(content)
        assert content_hash(file) == hashlib.sha256(content).hexdigest()
    assert sha256_file(tmp_path / "m.txt") == content_hash(tmp_path / "m.txt")


def test_versions_are_those_of_the_distributions():
    from importlib.metadata import version

    found = distribution_versions({"sklearn", "numpy", "no_such_package"})
    assert found == {name: version(name) for name in ("numpy", "torch", "scikit-learn")}
    assert source_files.changed_distributions(found) == []
    assert source_files.changed_distributions({**found, "numpy": "0", "gone": "1"}) == ["numpy", "gone"]
