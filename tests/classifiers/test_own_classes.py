"""Which outputs are which classes of the data: by name, by WordNet id, by index, several outputs for one."""

import found_models
import numpy as np
import pytest
import torch
from found_models import card, open_workspace, vit_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness.classifiers import libraries
from robustness.classifiers.adapter import ClassMapping
from robustness.classifiers.class_mapping import match_classes
from robustness.data import from_arrays
from robustness.errors import CardError, ModelError

NAMES = [
    ("tench, Tinca tinca", "n01440764"),
    ("crane", "n02012849"),
    ("tabby cat", "n02123045"),
    ("crane", "n03126707"),
]


@pytest.mark.parametrize(
    ("wanted", "given_", "groups"),
    [
        (["tabby_cat", "TENCH"], None, ((2,), (0,))),
        (["n02123045", "n03126707"], None, ((2,), (3,))),
        (["Tinca tinca", "n02012849"], None, ((0,), (1,))),
        (["0", "3"], None, ((0,), (3,))),
        (["a", "b", "c", "d"], None, None),
        (["cat", "dog"], ("dog", "x", "y", "cat"), ((3,), (0,))),
        (["cat", "dog"], "index", None),
        (["cat", "bird"], {"cat": "tabby cat", "bird": ("n02012849",)}, ((2,), (1,))),
        (["animal", "machine"], {"animal": (0, "n02012849", "tabby cat"), "machine": 3}, ((0, 1, 2), (3,))),
    ],
)
def test_classes_find_their_outputs(wanted, given_, groups):
    assert match_classes(wanted, given_, NAMES, 4)[0] == groups


@pytest.mark.parametrize(
    ("wanted", "given_", "message"),
    [
        (
            ["tench", "tabby", "carp"],
            None,
            "classes that the model does not know: tabby, carp; did you mean 'tabby cat'",
        ),
        (["fish", "bird"], None, r"none of the data's 2 classes \(fish, bird\) is one of the model's 4"),
        (["tench", "crane"], None, r"name several outputs of the model: crane \(1, 3\); name the output's index"),
        (["tench"], {"tensh": 0}, r"that \[model\.classes\] does not name: tench; did you mean 'tensh'"),
        (["cat"], {"cat": "tabby cats"}, r"model\.classes\.cat: classes that the model does not know: tabby cats; did"),
        (["bird"], {"bird": "crane"}, r"model\.classes\.bird: 'crane' names the outputs 1, 3; write one"),
        (["cat"], {"cat": 4}, r"model\.classes\.cat must be below the model's 4 outputs, got 4"),
        (["cat", "pet"], {"cat": 2, "pet": (2, 0)}, "names outputs more than once: 2"),
        (["cat"], {"cat": ()}, "at least one output for each"),
        (["cat"], ("cat", "dog"), r"name each of the model's 4 outputs, in their order, got 2 names"),
    ],
)
def test_classes_that_cannot_be_found_are_named(wanted, given_, message):
    """Catches: images of a class that nobody can get right, counted as lost under every perturbation."""
    with pytest.raises(ModelError, match=message):
        match_classes(wanted, given_, NAMES, 4)


def test_classes_of_a_model_that_names_none():
    """Catches: a table by index that asks for names, and names that are looked up in nothing."""
    assert match_classes(["cat"], {"cat": 7}, [], None)[0] == ((7,),)
    assert match_classes(["cat", "dog"], None, [], None) == (None, "")
    with pytest.raises(
        ModelError, match=r"the model does not name its classes, so tabby cannot be looked up; write ind"
    ):
        match_classes(["cat"], {"cat": "tabby"}, [], None)


def test_one_name_with_markup_pipes_and_300_characters_is_like_any_other():
    odd = ["<b>cat</b>|\n", "x" * 300]
    assert match_classes(odd[::-1], tuple(odd), [], 2)[0] == ((1,), (0,))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_probabilities_of_several_outputs_are_summed(seed, outputs):
    """Catches: the largest, the sum or the mean of logits. By hand: probabilities, summed, of the chosen outputs."""
    random = np.random.default_rng(seed)
    order = random.permutation(outputs).tolist()
    cut = int(random.integers(1, outputs))
    groups = (tuple(order[:cut]), tuple(order[cut : outputs - (outputs - cut > 1)]))
    logits = torch.from_numpy(random.normal(0, 5, (4, outputs)))
    chosen = logits.exp() / logits.exp()[:, [i for group in groups for i in group]].sum(1, keepdim=True)
    due = torch.stack([chosen[:, list(group)].sum(1) for group in groups], 1)
    torch.testing.assert_close(ClassMapping(groups)(logits).softmax(1), due)


def test_single_outputs_are_passed_on_bit_for_bit():
    logits = torch.tensor([[1e30, -3.25, float("nan")]])
    got = ClassMapping(((2,), (0,)))(logits)
    assert got[0, 1] == logits[0, 0]
    assert got[0, 0].isnan()
    with pytest.raises(ModelError, match=r"names output 3, the model has 3; outputs count from 0"):
        ClassMapping(((3,),))(logits)


def test_a_folders_own_classes_are_matched_in_a_sweep(tmp_path):
    """Catches: outputs in the model's order for labels in the data's; a subset that is judged on all ten."""
    found_models.imported("transformers")
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    vit_folder(tmp_path / "models" / "vit", labels=names)
    made = card(tmp_path, 'factory = "hf:vit"')
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), dtype=np.uint8)
    images = from_arrays(pixels, [0, 1, 2] * 2 + [0, 1], ("seven", "Two", "nine"))
    of = open_workspace(tmp_path, images, made)
    evidence = of.evidence(made)
    assert "found: 3 of the model's 10 classes are used, matched by name" in of.notices
    with torch.inference_mode():
        logits = (
            of.classifier(made)
            .module.model(
                pixel_values=(torch.from_numpy(images.batch(0, 8)) - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
                / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
            )
            .logits
        )
    assert evidence.predictions[0].tolist() == logits[:, [7, 2, 9]].argmax(1).tolist()
    wrong = from_arrays(pixels, [0, 1] * 4, ("seven", "twenty"))
    with pytest.raises(ModelError, match="classes that the model does not know: twenty"):
        open_workspace(tmp_path, wrong, made).evidence(made)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_imagenets_classes_by_name_and_by_wordnet_id(library):
    """Catches: a list in another order. The first and the last class are known, and so is where the cats stand."""
    found_models.imported("timm")
    names = libraries.class_names(library, torch.nn.Identity(), 1000)
    assert len(names) == 1000
    assert match_classes(["n01440764", "tabby", "n15075141"], None, names, 1000)[0] == ((0,), (281,), (999,))
    assert match_classes(["Egyptian cat", "tench"], None, names, 1000)[0] == ((285,), (0,))
    with pytest.raises(ModelError, match=r"crane \(134, 517\)"):
        match_classes(["crane", "tench"], None, names, 1000)
    assert libraries.class_names(library, torch.nn.Identity(), 10) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('classes = "names"', "'index'"),
        ("classes = [1, 2]", r"model\.classes\.0 = 1"),
        ("classes = { cat = -1 }", "greater than or equal to 0"),
        ("classes = { cat = [1.5] }", r"1\.5"),
        ('decision = { kind = "null" }\nclasses = "index"', "only under the decision argmax"),
    ],
)
def test_a_table_of_classes_that_cannot_be(tmp_path, line, message):
    with pytest.raises(CardError, match=message):
        card(tmp_path, 'factory = "torchvision:resnet18"', "seed = 0", line)


def test_classes_by_table_in_a_card(tmp_path):
    """Catches: a table that reaches no sweep; and evidence of one table for another's."""
    lines = ['factory = "torchvision:shufflenet_v2_x0_5"', "arguments = { num_classes = 12 }", "seed = 0"]
    made = card(tmp_path, *lines, "[model.classes]", *(f'"{i}" = [{i}, {i + 10}]' for i in range(2)),
                *(f'"{i}" = {i}' for i in range(2, 10)))  # fmt: skip
    of = open_workspace(tmp_path)
    assert of.evidence(made).status == ("ok",)
    assert "found: 12 outputs of the model stand for 10 classes, their probabilities are summed" in of.notices
    other = card(tmp_path, *lines, "[model.classes]", *(f'"{i}" = {i + 1}' for i in range(10)))
    assert of.key(other, "clean") != of.key(made, "clean")
