"""Names that have changed: cards, profiles and baselines with old names are rewritten, and mean the same."""

import json
import re
import shutil
from pathlib import Path

import helpers
import pytest

from robustness import cards
from robustness.cards import migrate, renames
from robustness.cli import main
from robustness.errors import CardError
from robustness.gate import baseline
from robustness.gate.differences import GateError

# The card before and after, with «old→new» where they differ.
CARD = """
# A detector.
name = "tiny"
«probabilities→store_probabilities» = true  # for roc_auc

[model]
factory = "{module}:factory"
decision = {{ kind = "null" }}
weights = "w.pt"
«entry→checkpoint_key»  = "ema"
«output→logits_key» = 'main'

[recipe]
callable = "{module}:recipe"
arguments = {{ of = "all", starts = "by command", kept = 1 }}
«starts→start» = "«by command→manual»"    # slow

[data]
name = "array"
file = "./a.npz"
groups = "g"
«of→pool» = "train"
test = "«given→official»"
«tested→num_test_images» = 300
split = {{ kind = "«grouped→group»", «share→fraction» = 0.2, seed = 1 }}

[sweeps.normal]
kind = "«normal→gaussian»"
source = "other.toml"
unit = "«std→image-std»"
strengths = [0.1, {{ uniform = [0.0, 0.3], «clean→clean_fraction» = 0.5 }}]

[sweeps.fgsm]
kind = "fgsm"
source = "other.toml"
unit = "«native→default»"
strengths = [0.1]

[sweeps.pgd]
kind          «→     »= "pgd"
«relative_step→relative_step_size» = 2.0
«worst_case →stop_when_fooled»   = true
strengths     «→     »= [0.1]

[sweeps.adaptive]
kind = "«adaptive→adaptive-pgd»"
«relative_step→relative_step_size» = 0.5
«radii→radius_fractions» = [0.5, 1.0]
«weights→detector_weights» = [0.0, 1.0]
strengths = [0.1]

[sweeps.gan]
kind = "«gan→advgan»"
«realism→discriminator_weight» = 0.1
«hinge→hinge_weight» = 0.2
«rms→hinge_threshold» = 0.7
strengths = [0.1]

[sweeps."gan to a class"]
kind = "«conditional-gan→conditional-advgan»"
«hinge→hinge_weight» = 0.2
strengths = [0.1]

[sweeps.shift]
kind = "«shift→translation»"
strengths = [2]

[sweeps.blur]
kind = "«blur→gaussian-blur»"
strengths = [1]

[claims.clean]
accuracy = [0.9]
«kept    →coverage» = [0.9]

[claims.normal]
strengths = [{{ uniform = [0.0, 0.3], «clean→clean_fraction» = 0.5 }}]
«accuracy_filtered→selective_accuracy»        = [0.6]
«transferability_filtered→selective_transferability» = ["no claim possible"]  # yet

[claims.fgsm]
«discarded→rejection_rate   »            = [0.5]
«undetected_wrong→undetected_error_rate   »     = [0.2]
«sensitivity→max_accuracy_slope »          = [2.0]
«deviation→accuracy_std     »            = [0.1]
«range →accuracy_range»               = [0.2]
«sensitivity_filtered→selective_max_accuracy_slope» = [2.0]
«deviation_filtered→selective_accuracy_std    »   = [0.1]
«range_filtered  →selective_accuracy_range»     = [0.2]

[search]
images = 40
«sure→min_confidence» = 0.8
«examples→max_examples» = 40
«flip_rate→max_flip_rate» = 0.1

[gate]
kind = "«weights→paired»"
margin = 0.02
metrics = [
    "accuracy",
    "«kept→coverage»",  # of all
]

[[waivers]]
claim = "fgsm:0.1:«range→accuracy_range»"
owner = "ada"
reason = "known"
expires = 2999-01-01

[[waivers]]
cell = "fgsm:0.1:«kept→coverage»"
owner = "ada"
reason = "known"
expires = 2999-01-01
"""
OLD, NEW = (re.sub("«([^→]*)→([^»]*)»", side, CARD) for side in (r"\1", r"\2"))
# Old names that the card above has no place for beside its others.
MORE = {
    'split = {{ kind = "grouped", share = 0.2, seed = 1 }}': ('split.kind = "given"', 'split.kind = "predefined"'),
    'test = "given"\ntested = 300\nsplit = {{ kind = "grouped", share = 0.2, seed = 1 }}': (
        '[data.split]\nkind = "folds"\nk = 5\nfold = 1',
        '[data.split]\nkind = "kfold"\nk = 5\nfold = 1',
    ),
    'kind = "weights"\nmargin = 0.02': ('kind = "recipe"', 'kind = "retraining"'),
    'starts = "by command"    # slow': ('starts = "when needed"', 'start = "automatic"'),
}


@pytest.fixture
def old(tmp_path):
    return helpers.project(tmp_path / "project", card=OLD)


def old_names():
    """All old names that the table has, as `renamed` lists them."""
    tables = [*renames.KEYS.values(), *renames.VALUES.values(), *renames.PARAMETERS.values()]
    return {name for table in tables for name in table}


def test_a_card_of_all_old_names_becomes_the_card_of_the_new_ones(old):
    """Catches: a name that the table misses, a comment or a line that is lost, another meaning, arguments renamed."""
    module = re.search('factory = "(.*):factory"', old.read_text())[1]
    changes = migrate.migrate(old)
    assert old.read_text() == NEW.format(module=module)
    twin = old.with_name("twin.toml")
    twin.write_text(NEW.format(module=module))
    assert cards.load(old).file == cards.load(twin).file
    for part, (before, after) in MORE.items():
        old.write_text(OLD.replace(part, before).format(module=module))
        changes += migrate.migrate(old)
        assert after in old.read_text()
    assert {change.old.rpartition(":")[2] for change in changes} == old_names()


def test_a_card_of_new_names_is_left_alone(old):
    """Catches: a file that is written again, or names renamed twice."""
    assert migrate.migrate(old)
    content, written = old.read_bytes(), old.stat().st_mtime_ns
    assert migrate.migrate(old) == []
    assert (old.read_bytes(), old.stat().st_mtime_ns) == (content, written)


def test_a_byte_order_mark_and_a_link_stay(old):
    """Catches: a link that is replaced by a file."""
    target = old.rename(old.with_name("elsewhere.toml"))
    target.write_bytes(b"\xef\xbb\xbf" + target.read_bytes())
    old.symlink_to(target)
    assert migrate.migrate(old)
    assert old.is_symlink()
    assert target.read_bytes().startswith(b"\xef\xbb\xbf\n# A detector.")


def test_an_old_name_is_an_error_with_the_new_one_and_the_command(old):
    """Catches: a card of old names whose error guesses at a misspelling."""
    with pytest.raises(CardError, match=r"name\(s\) have changed") as caught:
        cards.load(old)
    said = str(caught.value)
    assert "claims.clean: kept → coverage" in said
    assert "model: entry → checkpoint_key" in said
    assert "recipe.start: by command → manual" in said
    assert said.endswith(f"rewrite the file with: robustness migrate {old}")


def test_names_of_other_distributions_are_theirs(monkeypatch):
    """Catches: a metric, a perturbation or a parameter of another package that is called by an old name, renamed."""
    table = {
        "sweeps": {"far": {"kind": "mine", "weights": [1], "rms": 2, "strengths": [1]}, "blur": {"kind": "blur"}},
        "claims": {"far": {"kept": [0.5]}},
    }
    monkeypatch.setattr(renames.registry, "find", lambda name: object())
    monkeypatch.setattr(renames, "PERTURBATIONS", {"blur": object, "mine": object})
    assert renames.renamed(table) == (table, [])


def test_a_profile_of_old_names(tmp_path):
    """Catches: profiles that no command rewrites."""
    path = helpers.project(tmp_path / "project", card=f'profile = "mine"\nshape = [1, 28, 28]{helpers.CARD}')
    project = path.parents[1] / "pyproject.toml"
    before = (
        '[tool.robustness.profiles.mine.far]  # ours\nkind = "shift"\nstrengths = [2]\n\n[tool.other]\nof = "all"\n'
    )
    project.write_text(before)
    with pytest.raises(CardError, match=r"profiles\.mine\.far\.kind: shift → translation\); .*migrate pyproject\.toml"):
        cards.load(path)
    assert len(migrate.migrate(project)) == 1
    assert project.read_text() == before.replace('"shift"', '"translation"')
    assert cards.load(path).perturbation("far").kind == "translation"


def old_baseline(folder):
    """Write the shipped baseline as an earlier version did."""
    shipped = helpers.ROOT / "models" / "baselines"
    for file in shipped.glob("digits-cnn.*"):
        shutil.copy(file, folder)
    path = folder / "digits-cnn.json"
    text = path.read_text()
    for old, new in (*renames.PGD.items(), ("native", "default"), ("normal", "gaussian")):
        text = text.replace(f'"{new}"', f'"{old}"')
    document = json.loads(text.replace(f'"semantics": {renames.SEMANTICS[6]}', '"semantics": 6'))
    document.pop("checksum")
    path.write_bytes(baseline._signed(document))
    return path


def test_a_baseline_of_old_names_becomes_the_one_of_the_new_ones(tmp_path):
    """Catches: a baseline that differs from the shipped one but in names, one that is read with old names."""
    path = old_baseline(tmp_path)
    with pytest.raises(GateError, match=rf"kind: normal → gaussian.*robustness migrate {path}"):
        baseline.read(path)
    assert len(baseline.migrate(path)) == 9
    shipped = helpers.ROOT / "models" / "baselines" / "digits-cnn.json"
    assert path.read_bytes() == shipped.read_bytes()
    assert baseline.read(path).protocol == baseline.read(shipped).protocol
    assert baseline.migrate(path) == []


def test_a_baseline_that_was_edited_is_not_rewritten(tmp_path):
    """Catches: a checksum that is made to fit what was edited."""
    path = old_baseline(tmp_path)
    path.write_text(path.read_text().replace('"images": 600', '"images": 601'))
    content = path.read_bytes()
    with pytest.raises(GateError, match="its checksum does not match its content"):
        baseline.migrate(path)
    assert path.read_bytes() == content


def test_the_command_rewrites_cards_with_their_baselines(old, monkeypatch, capsys):
    """Catches: a baseline that is left, a broken file that stops the others, another exit code."""
    (old.parent / "baselines").mkdir()
    beside = old_baseline(old.parent / "baselines").rename(old.parent / "baselines" / "tiny.json")
    (old.parent / "broken.toml").write_text("name = ")
    monkeypatch.chdir(old.parents[1])
    assert main.main(["migrate"]) == 2
    out, err = capsys.readouterr()
    assert "broken.toml: not a readable TOML file" in err
    assert f"{old}: " in out
    assert f"{beside}: 9 name(s) rewritten" in out
    assert "  claims.clean: kept → coverage" in out
    assert main.main(["migrate", "models/tiny.toml"]) == 0
    assert capsys.readouterr().out == (
        f"{Path('models/tiny.toml')}: nothing to rewrite\n{Path('models/baselines/tiny.json')}: nothing to rewrite\n"
    )
    assert main.main(["migrate", "nowhere.toml"]) == 2
