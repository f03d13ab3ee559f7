"""
What must stay as it is while the code changes: keys and decisions of a fixed model, a run's words and JSON, the help.

To write these files: ``ROBUSTNESS_GOLDEN=write pytest tests/project/test_golden.py -n 0``; read their diff.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import helpers
import numpy as np
import pytest
from safetensors.numpy import save_file

from robustness import cards
from robustness.cli.parser import parser
from robustness.metrics.evidence import OK
from robustness.perturbations import PERTURBATIONS

FOLDER = Path(__file__).parents[1] / "golden"
VARYING = {"started", "seconds", "images_per_second", "key", "digest", "weights", "versions", "device", "checksum"}
SWEEPS = {
    "noise": 'kind = "gaussian"\nstrengths = [0.1, 0.3, 0.6]',
    "accumulated": 'kind = "uniform"\nclip = false\naccumulate = true\nstrengths = [0.1, 0.3, 0.6]',
    "snr": 'kind = "gaussian"\nunit = "snr-std"\nstrengths = [20, 10]',
    "fgsm": 'kind = "fgsm"\nstrengths = [0.02, 0.1, { uniform = [0.0, 0.2] }]',
    "ifgsm": 'kind = "ifgsm"\nsteps = 3\nstrengths = [0.05]',
    "pgd": 'kind = "pgd"\nsteps = 3\nstrengths = [0.02, 0.1]',
    "pgd-l2": 'kind = "pgd"\nnorm = "l2"\nsteps = 3\nstrengths = [0.5]',
    "apgd": 'kind = "apgd"\nsteps = 10\nstrengths = [0.02, 0.1]',
    "apgd-t": 'kind = "apgd-t"\nsteps = 5\ntarget_classes = 2\nstrengths = [0.05]',
    "autoattack": 'kind = "autoattack"\nsteps = 5\nqueries = 20\ntarget_classes = 2\nstrengths = [0.02, 0.1]',
    "fab": 'kind = "fab"\nsteps = 3\nstrengths = [0.02, 0.1]',
    "square": 'kind = "square"\nqueries = 20\nstrengths = [0.02, 0.1]',
    "smoothing": 'kind = "smoothing"\nselection_samples = 10\nsamples = 100\nstrengths = [0.05, 0.3]',
    "stg": 'kind = "stg"\nstrengths = [3]',
    "brightness": 'kind = "brightness"\nstrengths = [0.3]',
    "contrast": 'kind = "contrast"\nstrengths = [0.3]',
    "rotation": 'kind = "rotation"\nstrengths = [15]',
    "shift": 'kind = "translation"\nstrengths = [2]',
    "blur": 'kind = "gaussian-blur"\nstrengths = [1]',
    "fog": 'kind = "corruption"\nname = "fog"\nstrengths = [1, 5]',
    "jpeg": 'kind = "corruption"\nname = "jpeg-compression"\nstrengths = [5]',
    "gan": 'kind = "advgan"\nsteps = 3\nstrengths = [0.1]',
    "conditional": 'kind = "conditional-advgan"\nsteps = 3\nstrengths = [0.1]',
    "patch": 'kind = "patch"\nsteps = 3\nstrengths = [0.2, 0.5]',
    "from-other": 'kind = "fgsm"\nsource = "other.toml"\nstrengths = [0.1]',
}
CARD = """
name = "{name}"

[model]
factory = "{{module}}:factory"
arguments = {{{{ classes = 10 }}}}
weights = "{name}.safetensors"

[recipe]
callable = "{{module}}:recipe"

[data]
name = "digits"
split = {{{{ kind = "balanced", per_class = 12 }}}}
"""
SUMMARY = """
[claims.fgsm]
accuracy = [0.99, 0.1]

[sweeps.fgsm]
kind = "fgsm"
strengths = [0.05, 0.1]
"""


def check(name: str, text: str) -> None:
    """Compare with a golden file, or write it."""
    path = FOLDER / name
    if os.environ.get("ROBUSTNESS_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def class_means() -> np.ndarray:
    """Weights from integers alone, the same on every machine: a class's mean image less the mean of all."""
    digits = helpers.digits(40)
    pixels = digits.stored(0, len(digits)).reshape(len(digits), -1).astype(np.int64)
    means = np.stack([pixels[digits.labels == label].sum(0) for label in range(10)])
    return ((10 * means - means.sum(0)) // 64).astype(np.float32) / 8192


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "project"
    name, other = (CARD.format(name=name) for name in ("tiny", "other"))
    sweeps = (
        "".join(f"\n[sweeps.{name}]\n{text}\n" for name, text in SWEEPS.items()).replace("{", "{{").replace("}", "}}")
    )
    path = helpers.project(folder, card=name + sweeps)
    (path.parent / "other.toml").write_text(other.format(module=cards.load(path).file.model.factory.partition(":")[0]))
    weight = class_means()
    for name, rows in (("tiny", weight), ("other", np.roll(weight, 1, axis=1))):
        save_file({"1.weight": rows, "1.bias": np.zeros(10, np.float32)}, path.parent / f"{name}.safetensors")
    return helpers.open_workspace(path), cards.load(path)


def test_keys_and_decisions_of_a_fixed_model(workspace):
    """
    Catches: a change of keys, which throws away every store, and a change of numbers without a raise of SEMANTICS.

    The module's name is new each time; it is replaced before the keys are hashed.
    """
    workspace, card = workspace
    assert {table.split('"')[1] for table in SWEEPS.values()} == set(PERTURBATIONS) - {
        "clean",
        "adaptive-pgd",
        "external",
    }
    rows = {}
    for sweep in ("clean", *SWEEPS):
        fields = {**workspace.key_fields(workspace.resolve(card, sweep)), "device": "cpu"}
        fields.pop("generator", None)  # its key has the hash of the project's files, whose names are new each time
        text = re.sub(r"tiny_\d+_\d+", "module", json.dumps(fields, sort_keys=True))
        evidence = workspace.evidence(card, sweep)
        assert set(evidence.status) == {OK}
        decisions = hashlib.sha256(np.ascontiguousarray(evidence.predictions, np.int64).tobytes())
        rows[sweep] = {"key": hashlib.sha256(text.encode()).hexdigest()[:16], "decisions": decisions.hexdigest()[:16]}
    check("evidence.json", json.dumps(rows, indent=1) + "\n")


def test_the_help_of_every_command(monkeypatch):
    """Catches: a command, an option or a sentence of its help that is lost."""
    monkeypatch.setenv("COLUMNS", "120")
    check("help.txt", "\n\n".join(texts(parser())))


def texts(of):
    yield of.format_help()
    for action in of._subparsers._group_actions if of._subparsers else ():
        for command in dict.fromkeys(action.choices.values()):
            yield from texts(command)


def test_what_a_red_run_prints_and_reports(project):
    """Catches: a line of the terminal summary or a key of the JSON that is lost, or a number that is another."""
    project.edit(project.card, ("[sweeps.uniform]", SUMMARY + "\n[sweeps.uniform]"))
    run = project.fill().run()
    printed = run.out.partition(" robustness ==")[2].partition("\n")[2].partition("\n=====")[0]
    check("summary.txt", printed.replace(run.report["models"][0]["device"], "CPU") + "\n")
    check("report.json", json.dumps(unlike_each_run(run.report), indent=1, ensure_ascii=False) + "\n")


def unlike_each_run(value):
    """Replace what differs between runs and machines, times, versions, hardware, and round numbers."""
    if isinstance(value, dict):
        return {key: key.upper() if key in VARYING else unlike_each_run(each) for key, each in value.items()}
    if isinstance(value, list):
        return [unlike_each_run(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value
