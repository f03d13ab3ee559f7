"""The table of corruption errors against a reference: counts of wrong images, and the definition by hand."""

from dataclasses import replace

import pytest
from helpers import open_workspace
from transfer_pairs import pair, text

from robustness import cards
from robustness.cli import common, main
from robustness.errors import CardError
from robustness.reporting import corruption_errors

pytestmark = pytest.mark.usefixtures("own_path")

NAMES = "fog", "contrast", "saturate"
SWEEPS = "\n".join(f'[sweeps.{name}]\nkind = "corruption"\nname = "{name}"\nstrengths = [0, 3, 5]' for name in NAMES)


@pytest.fixture
def project(tmp_path):
    """Cards tiny, which sweeps three corruptions, and other, which sweeps none."""
    return pair(tmp_path / "project", target=text(sweep="far", source=None, more=SWEEPS))


def rate(evidence, row):
    return float((evidence.predictions[row] != evidence.labels).mean())


def test_means_are_those_of_wrong_images_under_the_benchmarks_corruptions(project):
    """Catches: accuracy for error, an extra corruption in the mean, severity 0, a reference on its own images."""
    workspace = open_workspace(project)
    tiny, other = (cards.load(project.with_name(f"{name}.toml")) for name in ("tiny", "other"))
    printed = list(corruption_errors.table(workspace, tiny, other))
    file = other.file.model_copy(update={"sweeps": tiny.file.sweeps})
    reference = replace(other, file=file)
    ours, theirs = (
        {name: [rate(workspace.evidence(card, name), row) for row in (1, 2)] for name in NAMES}
        for card in (tiny, reference)
    )
    clean = [rate(workspace.evidence(card), 0) for card in (tiny, other)]
    mean = sum(sum(ours[name]) / sum(theirs[name]) for name in NAMES[:2]) / 2
    relative = sum((sum(ours[n]) - 2 * clean[0]) / (sum(theirs[n]) - 2 * clean[1]) for n in NAMES[:2]) / 2
    assert printed[-2].startswith(f"mCE {mean:.1%}, relative mCE {relative:.1%}, over 2 of the 15")
    assert printed[-1] == f"clean error {clean[0]:.1%}, reference {clean[1]:.1%}"
    rows = {line.split()[0]: line for line in printed[3:-2]}
    assert set(rows) == set(NAMES)
    assert f"{sum(ours['contrast']) / 2:.1%}" in rows["contrast"]
    assert rows["saturate"].endswith("not in the means")


def test_a_model_against_itself_is_at_one(project):
    """Catches: a reference with other seeds or severities."""
    tiny = cards.load(project)
    assert "mCE 100.0%, relative mCE 100.0%" in list(corruption_errors.table(open_workspace(project), tiny, tiny))[-2]


def test_a_reference_that_loses_nothing_has_no_relative_mean(project):
    """Catches: a division by 0, and an mCE that is lost with it."""
    path = project.with_name("noisy.toml")
    path.write_text(project.read_text().replace('"tiny"', '"noisy"').replace("fog", "gaussian-noise"))
    noisy = cards.load(path)
    line = list(corruption_errors.table(open_workspace(path), noisy, noisy))[-2]
    assert line.startswith("mCE 100.0%, relative mCE undefined (`reference` must lose accuracy under gaussian-noise")


def test_a_card_without_corruptions_is_an_error(project):
    """Catches: a mean over nothing."""
    other = cards.load(project.with_name("other.toml"))
    with pytest.raises(CardError, match=r"other must sweep common corruptions, got sweeps near; write profile"):
        list(corruption_errors.table(open_workspace(project), other, other))


def test_command(project, capsys, monkeypatch):
    """Catches: a command that takes the reference for the model."""
    monkeypatch.chdir(project.parents[1])
    folder = project.parents[2]
    options = ["--store", str(folder / "store"), "--data", str(folder / "data"), "--device", "cpu"]
    assert main.main(["corruption-error", "tiny", "--reference", "other", *options]) == 0
    assert "tiny against other, 80 images of digits test" in capsys.readouterr().out
    assert main.main(["corruption-error", "other", "--reference", "tiny", *options]) == common.ERROR
    assert "other must sweep common corruptions" in capsys.readouterr().err
