"""AdvGAN: what a fitted generator gives, to whom it belongs, and that fitting it is repeatable and leaves no trace."""

import numpy as np
import pytest
import tiny_project
import torch
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.classifiers.weights import content_hash
from robustness.data.images import from_arrays
from robustness.errors import ModelError, TrainingError
from robustness.metrics.evidence import OK
from robustness.perturbations import AdvGAN, ConditionalAdvGAN, Patch
from robustness.sweep.runner import run_sweep
from robustness.workspace import attack_inputs, generators, patches
from robustness.workspace.context import no_progress
from robustness.workspace.recipes import Job
from robustness.workspace.store import Store
from robustness.workspace.training import fit_many, train_many
from robustness.workspace.workspace import Workspace

SHORT = AdvGAN(steps=60, batch_size=20, width=4)


def images(shape=(8, 8), count=60):
    random = np.random.default_rng(0)
    return from_arrays(random.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 3)


def linear(features=64, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).eval()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_reaches_most_of_what_the_best_direction_could():
    """Of two classes of a linear model, k·sign(w1 − w0) is best: the margin falls by k·‖w1 − w0‖₁ if nothing clips."""
    random = np.random.default_rng(1)
    grey = from_arrays(random.integers(100, 156, (60, 8, 8), dtype=np.uint8), np.zeros(60, int), ("a", "b"))
    model = linear(classes=2)
    fitted = generators.fit(
        model, grey, AdvGAN(steps=150, batch_size=20, width=8, bound=0.2, discriminator_weight=0.0), Job(0)
    )
    inputs = torch.from_numpy(grey.batch(0, 60))
    with torch.no_grad():
        before, after = model(inputs), model(inputs + 0.2 * fitted(inputs))
    fall = ((before[:, 0] - before[:, 1]) - (after[:, 0] - after[:, 1])).mean()
    best = 0.2 * (model[1].weight[1] - model[1].weight[0]).abs().sum()
    assert fall > 0.5 * best


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (28, 28, 3)], ids=["small", "odd", "colour"])
def test_any_size_stays_within_k(shape):
    some = images(shape, 30)
    model = linear(int(np.prod(shape)))
    fitted = generators.fit(model, some, AdvGAN(steps=3, batch_size=10, width=4), Job(0))
    evidence = run_sweep(model, some, AdvGAN(), [0.0, 0.1], generator=fitted)
    assert evidence.status == (OK, OK)
    for count in (1, 30):
        made = fitted(torch.from_numpy(some.batch(0, count)))
        assert made.shape == (count, *some.shape)
        assert made.abs().max() <= 1


def test_the_seed_decides_and_nothing_else():
    some, model = images(), linear()
    torch.manual_seed(5)
    first = generators.fit(model, some, SHORT, Job(0))
    torch.manual_seed(6)
    assert same(first, generators.fit(model, some, SHORT, Job(0)))
    assert not same(first, generators.fit(model, some, SHORT, Job(1)))


def test_an_interrupted_fit_goes_on_to_the_same_generator(tmp_path):
    some, model, store = images(), linear(), Store(tmp_path)
    whole = generators.fit(model, some, SHORT, Job(0))

    class Stop(Exception):
        pass

    def stopping(done, total):
        if done >= 50:
            raise Stop

    job = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    saved, job.save = job.save, lambda state: (saved(state), stopping(50, 60))
    with pytest.raises(Stop):
        generators.fit(model, some, SHORT, job)
    again = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    assert same(generators.fit(model, some, SHORT, again), whole)
    assert again.resumed


@pytest.mark.parametrize(
    ("module", "about"),
    [(generators, SHORT), (patches, Patch(sides=(0.25, 0.5), steps=60, batch_size=20))],
    ids=["generator", "patch"],
)
def test_the_target_is_left_as_it_was(module, about):
    """Catches: batch norm that learns from the fit, gradients that stay."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(108, 3))
    model[1].eval()
    before, modes = state_hash(model), [m.training for m in model.modules()]
    module.fit(model, images(), about, Job(0))
    assert state_hash(model) == before
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", [AdvGAN, ConditionalAdvGAN])
def test_a_generator_is_read_back_and_one_of_another_model_is_refused(tmp_path, kind):
    """Catches: weights that fit by chance, a torn file, a generator of x taken for one of x and t."""
    model, about, path = linear(), kind(steps=2, batch_size=10, width=4), tmp_path / "generator.safetensors"
    fitted, other = generators.fit(model, images(), about, Job(0)), {AdvGAN, ConditionalAdvGAN} - {kind}
    path.write_bytes(generators.save(fitted, state_hash(model)))
    assert same(generators.load(path, about, images(), state_hash(model)), fitted)
    with pytest.raises(ModelError, match="fitted to another model"):
        generators.load(path, about, images(), state_hash(linear(seed=1)))
    for wrong in ((about, images((8, 8, 3))), (other.pop()(width=4), images())):
        with pytest.raises(ModelError, match="another architecture"):
            generators.load(path, *wrong, state_hash(model))
    if kind is ConditionalAdvGAN:
        with pytest.raises(ValueError, match="`targets` must be given to a generator of x and t, got None"):
            fitted(torch.zeros(1, 1, 8, 8))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError):
        generators.load(path, about, images(), state_hash(model))


class Broken(nn.Module):
    """No numbers, of the images' shape or of that of three logits."""

    def __init__(self, logits=False):
        super().__init__()
        self.logits = logits

    def forward(self, inputs):
        return (inputs.flatten(1)[:, :3] if self.logits else inputs) * torch.nan


def test_a_generator_that_is_none_or_gives_no_numbers_is_an_error():
    """Catches: a step of NaN, or none, as an image that nothing seems to change."""
    with pytest.raises(ModelError, match="needs a generator fitted to the model, got None"):
        run_sweep(linear(), images(), AdvGAN(), [0.1])
    evidence = run_sweep(linear(), images(), AdvGAN(), [0.1, 0.2], generator=Broken())
    assert all(status.startswith("the generator gives no numbers for 60 of 60") for status in evidence.status)
    with pytest.raises(TrainingError, match="loss became nan"):
        generators.fit(Broken(logits=True), images(), SHORT, Job(0))


def test_a_generator_of_x_and_t_takes_images_where_it_is_told():
    """Asked for either wrong class of three it goes there. Catches: a class that reaches no layer, or the wrong one."""
    random = np.random.default_rng(1)
    grey = from_arrays(random.integers(100, 156, (90, 8, 8), dtype=np.uint8), np.arange(90) % 3)
    model = linear()
    about = ConditionalAdvGAN(steps=300, batch_size=30, width=8, bound=0.3, discriminator_weight=0.0)
    fitted = generators.fit(model, grey, about, Job(0))
    inputs = torch.from_numpy(grey.batch(0, 90))
    with torch.no_grad():
        clean = model(inputs)
        for target in range(3):
            aims = torch.full((90,), target)
            moved = model((inputs + 0.3 * fitted(inputs, aims)).clamp(0, 1)) - clean
            others = [other for other in range(3) if other != target]
            assert (moved[:, target] > moved[:, others].amax(1)).float().mean() > 0.9


def test_a_sweep_aims_at_the_likeliest_wrong_class_of_the_attacked_model():
    """Catches: the likeliest class, which may be the true one, and that of the swept model in a transfer."""
    some, source, swept = images(), linear(seed=0), linear(seed=1)

    seen = []

    class Told(nn.Module):
        def forward(self, inputs, targets):
            seen.append(targets)
            return torch.zeros_like(inputs)

    run_sweep(swept, some, ConditionalAdvGAN(), [0.1], generator=Told(), source=source, batch_size=60, threads=1)
    with torch.no_grad():
        logits = source(torch.from_numpy(some.batch(0, 60)))
    due = [
        max((c for c in range(3) if c != label), key=row.__getitem__)
        for row, label in zip(logits.tolist(), some.labels, strict=True)
    ]
    assert seen[0].tolist() == due


@pytest.mark.parametrize(
    ("table", "product"),
    [
        ('kind = "advgan"\nsteps = 20\nbatch_size = 20\nwidth = 4', "generator"),
        ('kind = "patch"\nsteps = 5\nbatch_size = 20\nsides = [0.2]', "square"),
    ],
    ids=["advgan", "patch"],
)
def test_side_by_side_they_are_those_of_one_by_one(tmp_path, table, product):
    """Catches: another seed in a worker, the generator of another model, one that its sweep does not find."""
    project = tiny_project.make(tmp_path)
    project.edit('kind = "gaussian"', table)
    cards = [project.card.reseeded(seed) for seed in (1, 2)]
    fitted, said = {}, []

    def progress(what):
        said.append(what)
        return no_progress(what)

    for workers in (1, 2):
        workspace = Workspace(Store(tmp_path / f"{workers}"), tmp_path, seed=7, progress=progress)
        train_many(cards, workspace.store.root, tmp_path, 1)
        wanted = [(card, card.perturbation("normal")) for card in cards]
        fit_many([*wanted, *wanted], workspace, workers)
        fitted[workers] = [content_hash(attack_inputs.generator_file(workspace, *of)) for of in wanted]
        for card in cards:
            assert workspace.evidence(card, "normal").status == (OK, OK)
    assert fitted[1] == fitted[2]
    assert fitted[1][0] != fitted[1][1]
    assert [what for what in said if "fitting" in what] == [
        *(f"fitting a {product} to tiny" for _ in cards), "fitting, percent of 2 generators",
    ]  # fmt: skip
