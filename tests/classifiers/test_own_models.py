"""Models as they are found: factories by name, what their libraries do to images, what they take and give."""

import contextlib
import json

import found_models
import helpers
import numpy as np
import pytest
import torch
from found_models import card, onnx_apart, open_workspace, vit_folder
from PIL import Image
from torch import nn

from robustness import cards
from robustness.classifiers import adapt, libraries, weights
from robustness.classifiers.adapter import AdaptedModel, convert_channels, extract_logits
from robustness.classifiers.build import unwrap
from robustness.classifiers.preprocessing import Normalisation, expected_preprocessing, images_table
from robustness.data import from_arrays
from robustness.errors import CardError, MissingLibrary, ModelError
from robustness.util import source_files

pytestmark = pytest.mark.usefixtures("own_path")


@pytest.fixture
def transformers():
    """The library, imported after torchvision's operators are declared."""
    return found_models.imported("transformers")


@pytest.fixture
def timm():
    """The library, imported after torchvision's operators are declared."""
    return found_models.imported("timm")


def colours(count=6, size=28):
    """Random colour images as bytes, (N, H, W, 3)."""
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# Hugging Face folders


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 0.8]},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
    ],
    ids=["usual", "not normalised", "rescaled otherwise", "not rescaled"],
)
def test_a_folder_gives_the_logits_of_the_librarys_own_pipeline(tmp_path, transformers, processor):
    """Catches: another mean, std or scale, channels in another order, weights that were not loaded."""
    folder = vit_folder(tmp_path / "models" / "vit", **processor)
    made = card(tmp_path, 'factory = "hf:vit"')
    images = from_arrays(colours(), [0, 1, 2, 3, 4, 9], tuple("abcdefghij"))
    model = open_workspace(tmp_path, images, made).classifier(made).module
    pipeline = transformers.pipeline(
        "image-classification",
        model=transformers.AutoModelForImageClassification.from_pretrained(folder),
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
        device="cpu",
    )
    pictures = [Image.fromarray(picture) for picture in images.pixels]
    due = [
        {each["label"]: each["score"] for each in scores}
        for scores in pipeline(pictures, top_k=10, function_to_apply="none")
    ]
    with torch.inference_mode():
        got = model(torch.from_numpy(images.batch(0, 6)))
    due = torch.tensor([[scores[f"LABEL_{i}"] for i in range(10)] for scores in due])
    assert due.std() > 0.1, "else any logits would do"
    torch.testing.assert_close(got, due, rtol=0, atol=1e-5)


def test_a_folder_with_other_weights_is_other_evidence_wherever_it_lies(tmp_path, transformers):
    """Catches: a key that has the folder's place in it, or that misses what its image processor says."""
    made = [vit_folder(tmp_path / home / "models" / name) for home, name in (("one", "vit"), ("other", "moved"))]
    one, other = (
        card(tmp_path / home, f'factory = "hf:{folder.name}"')
        for home, folder in zip(("one", "other"), made, strict=True)
    )
    first = open_workspace(tmp_path / "one").model_key_fields(one)
    assert open_workspace(tmp_path / "other").model_key_fields(other) == first
    found_models.edit(made[1] / "preprocessor_config.json", image_mean=[0.1, 0.1, 0.1])
    assert open_workspace(tmp_path / "other").model_key_fields(other) != first


def test_a_folder_of_another_architecture_is_refused(tmp_path, transformers):
    """Catches: a head that transformers makes anew at random, and says in a log that nobody reads."""
    folder = vit_folder(tmp_path / "models" / "vit")
    found_models.edit(folder / "config.json", hidden_size=32, num_hidden_layers=3)
    made = card(tmp_path, 'factory = "hf:vit"')
    with pytest.raises(ModelError, match=r"weights of another architecture: missing: .* of another shape: ") as caught:
        open_workspace(tmp_path).classifier(made)
    assert "instead of" in str(caught.value)
    assert str(made.path) in str(caught.value)


def test_a_folder_whose_weights_or_processor_are_gone(tmp_path, transformers):
    """Catches: weights that are left as they were initialised, and images that are not normalised at all."""
    folder = vit_folder(tmp_path / "models" / "vit")
    made = card(tmp_path, 'factory = "hf:vit"')
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"the normalisation is unknown .* mean = \[\.\.\.\]"):
        open_workspace(tmp_path).classifier(made)
    card(tmp_path, 'factory = "hf:vit"', 'preprocessing = "none"')
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the folder has no weights; it needs one of model\.safetensors"):
        open_workspace(tmp_path).classifier(made)
    (folder / "config.json").unlink()
    with pytest.raises(CardError, match=r"must be a folder with a config\.json"):
        card(tmp_path, 'factory = "hf:vit"')


def test_code_in_a_folder_is_not_run(tmp_path, transformers):
    """Catches: trust in whoever wrote the folder."""
    folder = vit_folder(tmp_path / "models" / "vit")
    (folder / "bomb.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    found_models.edit(
        folder / "config.json",
        model_type="unheard of",
        auto_map={"AutoConfig": "bomb.Config", "AutoModelForImageClassification": "bomb.Model"},
    )
    made = card(tmp_path, 'factory = "hf:vit"')
    with pytest.raises(ModelError, match="transformers cannot build a classifier"):
        open_workspace(tmp_path).classifier(made)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("about", "due"),
    [
        ({"size": {"height": 40, "width": 32}}, {"size": [40, 32], "crop": "none", "interpolation": "bilinear"}),
        ({"resample": 3, "do_resize": False}, {"interpolation": "bicubic"}),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "do_center_crop": True,
             "crop_size": {"height": 32, "width": 32}, "resample": 3},
            {"resize": 40, "size": [32, 32], "crop": "center", "interpolation": "bicubic"},
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 35}, "crop_pct": 0.875},
            {"resize": 40, "size": [35, 35], "crop": "center", "interpolation": "bilinear"},
        ),
    ],
    ids=["squashed", "left as they are", "cropped", "by a share"],
)  # fmt: skip
def test_what_a_processor_does_to_pixels_is_what_the_table_says(tmp_path, transformers, about, due):
    """Catches: sides taken for each other; a table after which images have another size than the library's have."""
    folder = vit_folder(tmp_path / "vit")
    found_models.edit(folder / "preprocessor_config.json", **about)
    table = images_table(expected_preprocessing("hf:vit", folder=tmp_path))
    assert table == due
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    got = processor(Image.fromarray(colours(1, 50)[0]), return_tensors="np")["pixel_values"].shape[2:]
    assert got == tuple(table.get("size", (50, 50)))


def test_what_a_table_cannot_say_is_said(tmp_path, transformers):
    """Catches: an interpolation or a crop that is left out in silence."""
    folder = vit_folder(tmp_path / "vit")
    found_models.edit(folder / "preprocessor_config.json", resample=4)
    with pytest.raises(ModelError, match="its interpolation must be one of nearest, bilinear, bicubic, lanczos"):
        expected_preprocessing("hf:vit", folder=tmp_path)
    crop = {"do_center_crop": True, "crop_size": {"height": 20, "width": 20}, "resample": 2}
    found_models.edit(folder / "preprocessor_config.json", **crop)
    assert "it then crops 20×20" in expected_preprocessing("hf:vit", folder=tmp_path).source
    (folder / "preprocessor_config.json").write_text("[1")
    with pytest.raises(ModelError, match="not a readable image processor"):
        expected_preprocessing("hf:vit", folder=tmp_path)


# timm and torchvision


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "mixer_b16_224"])
def test_what_timm_does_to_images(timm, name):
    """Catches: a crop share taken for a size; mean and std of another model. timm's own transform is the oracle."""
    found = expected_preprocessing(f"timm:{name}")
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    resize, crop, *_, normalise = timm.data.create_transform(**config).transforms
    assert (found.resize, list(found.size)) == (resize.size, list(crop.size))
    assert found.interpolation == resize.interpolation.value
    np.testing.assert_allclose([found.mean, found.std], [normalise.mean, normalise.std])


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "vit_b_16", "efficientnet_v2_s"])
def test_what_torchvision_does_to_images(name):
    """Catches: the sizes of other weights. The transform itself, on one picture, is the oracle for all but a crop."""
    from robustness.util.torchvision_compat import models

    found = expected_preprocessing(f"torchvision:{name}")
    transform = models.get_model_weights(name).DEFAULT.transforms()
    picture = Image.fromarray(colours(1, found.resize)[0]).crop((0, 0, found.resize, found.resize))
    top, left = ((found.resize - side + 1) // 2 for side in found.size)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    cropped = pixels[:, :, top : top + found.size[0], left : left + found.size[1]]
    got = AdaptedModel(nn.Identity(), normalisation=found.normalisation).normalise(cropped)
    torch.testing.assert_close(got[0], transform(picture))


def test_a_model_of_the_users_own_has_no_library():
    assert expected_preprocessing("mypackage.models:Net") is None


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_random_weights_of_a_library_are_those_of_the_seed(tmp_path, library):
    """Catches: weights that differ each time, a seed that does not count, images that are not normalised."""
    found_models.imported(library)
    lines = [f'factory = "{library}:resnet18"', "arguments = { num_classes = 10 }"]
    made = card(tmp_path, *lines, "seed = 3")
    of = open_workspace(tmp_path)
    first = of.classifier(made).module
    assert of.notices == ["found: its weights are random (seed 3), as the card says"]
    again = open_workspace(tmp_path / "again").classifier(made).module
    other = open_workspace(tmp_path).classifier(card(tmp_path, *lines, "seed = 4")).module
    values = [unwrap(module).state_dict()["conv1.weight"] for module in (first, again, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    inputs = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        due = unwrap(first)((inputs.expand(-1, 3, -1, -1) - mean) / std)
        torch.testing.assert_close(first(inputs), due)


def test_a_sweep_of_a_librarys_model_says_what_was_done(tmp_path):
    """Catches: normalisation that no reader of the run is told of; a warm run that does not say it."""
    made = card(tmp_path, 'factory = "torchvision:shufflenet_v2_x0_5"', "arguments = { num_classes = 10 }", "seed = 0")
    for _ in range(2):
        of = open_workspace(tmp_path)
        assert of.evidence(made, "fgsm").status == ("ok",)
        (said,) = [notice for notice in of.notices if "normalised" in notice]
        assert "mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225" in said
        assert "ShuffleNet_V2_X0_5_Weights" in said
        assert "resize 256, size [224, 224], crop center, interpolation bilinear" in said
        assert said.endswith("interpolation bilinear: the card's images are not resized")
        assert any("its images are 28×28 pixels, its library's 224×224 pixels" in notice for notice in of.notices)


DONE = {
    "so": ({"resize": 256, "size": [224, 224]}, "the card does the same"),
    "otherwise": ({"size": [224, 224]}, "the card differs, size [224, 224], crop center, interpolation bilinear"),
    "not": ({"mode": "L"}, "the card's images are not resized"),
}


@pytest.mark.parametrize("way", DONE)
def test_the_report_says_whether_pictures_are_brought_to_size_as_the_library_does(tmp_path, way):
    """Catches: a report that says what is due alone; another way to the same size taken for the library's."""
    table, said = DONE[way]
    made = cards.parse_card(
        {
            "name": "found", "model": {"factory": "torchvision:shufflenet_v2_x0_5", "seed": 0},
            "data": {"name": "folder", "folder": "./pictures", "images": table},
        },
        tmp_path / "found.toml",
    )  # fmt: skip
    assert adapt.adapt_model(made, nn.Identity(), ())[1][0].endswith(f": {said}")


@pytest.mark.parametrize(("shape", "count"), [((3, 224, 224), 0), ((1, 224, 224), 0), ((3, 224, 160), 1)])
def test_images_of_another_size_than_the_librarys_are_said(tmp_path, shape, count):
    """Catches: a notice about every model, about channels, or about one side alone that differs."""
    made = card(tmp_path, 'factory = "torchvision:resnet18"', "seed = 0")
    notes = adapt.adapt_model(made, nn.Identity(), (), shape)[1]
    assert sum("its library's" in note for note in notes) == count


REFUSED = {
    "pretrained": (['factory = "timm:resnet18"', "arguments = { pretrained = true }", "seed = 0"],
                   r"arguments\.pretrained = True: nothing is downloaded"),
    "weights": (['factory = "torchvision:resnet18"', 'arguments = { weights = "DEFAULT" }', "seed = 0"],
                r"arguments\.weights = 'DEFAULT': nothing is downloaded"),
    "from the hub": (['factory = "timm:hf_hub:timm/resnet18"', "seed = 0"], "must name a model that timm builds"),
    "a folder by timm": (['factory = "timm:local-dir:/tmp"', "seed = 0"], "must name a model that timm builds"),
    "no name": (['factory = "timm:"', "seed = 0"], "must name a model after the colon"),
    "no weights": (['factory = "torchvision:resnet18"'], r"the card needs model\.weights.*model\.seed requests"),
    "weights twice": (['factory = "torchvision:resnet18"', 'weights = "w.pt"', "seed = 1"], "remove one of them"),
    "entry of nothing": (['factory = "torchvision:resnet18"', "seed = 1", 'checkpoint_key = "ema"'],
                         "checkpoint_key: selects an entry"),
    "no library": (['factory = "net:Net"', 'preprocessing = "library"', "seed = 0"], "hf define"),
    "a word": (['factory = "net:Net"', 'preprocessing = "imagenet"', "seed = 0"], "'library' or 'none'"),
    "std 0": (['factory = "net:Net"', "preprocessing = { mean = [0.5], std = [0.0] }", "seed = 0"], "std above 0"),
    "lengths": (['factory = "net:Net"', "preprocessing = { mean = [0.5], std = [1, 2] }", "seed = 0"], "same length"),
    "bytes": (['factory = "net:Net"', "preprocessing = { mean = 123.7, std = 58 }", "seed = 0"], "bytes by 255"),
    "no numbers": (['factory = "net:Net"', "preprocessing = { mean = [], std = [nan] }", "seed = 0"], "same length"),
    "two channels": (['factory = "net:Net"', "channels = 2", "seed = 0"], "channels = 2: "),
    "layout": (['factory = "net:Net"', 'layout = "CHW"', "seed = 0"], "'NCHW' or 'NHWC'"),
    "no file": (['factory = "onnx:gone.onnx"'], "there is no file"),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), REFUSED.values(), ids=REFUSED)
def test_a_card_that_asks_for_what_cannot_be(tmp_path, lines, message):
    with pytest.raises(CardError, match=message) as caught:
        card(tmp_path, *lines, net="def Net(): ...")
    assert "1 problem(s)" in str(caught.value) or "model.factory" in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_model_that_a_library_has_not(tmp_path, library):
    found_models.imported(library)
    made = card(tmp_path, f'factory = "{library}:resnet81"', "seed = 0")
    with pytest.raises(ModelError, match=f"{library} has no classifier 'resnet81'; did you mean 'resnet.*nothing is d"):
        open_workspace(tmp_path).classifier(made)
    made = card(tmp_path, f'factory = "{library}:resnet18"', "seed = 0", "arguments = { depth = 3 }")
    with pytest.raises(ModelError, match=f"{library}:resnet18 raised TypeError"):
        open_workspace(tmp_path).classifier(made)


def test_a_model_without_classes_is_refused(tmp_path, timm):
    """Catches: features that are taken for the classes of data which happen to be as many."""
    made = card(tmp_path, 'factory = "timm:resnet18"', "seed = 0", "arguments = { num_classes = 0 }")
    with pytest.raises(
        ModelError, match=r"the model returns features and has no classes; write arguments = \{ num_classes"
    ):
        open_workspace(tmp_path).classifier(made)


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    """Catches: an ImportError out of the middle, and an extra of another name."""
    monkeypatch.setattr(libraries.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(MissingLibrary, match=r'needs onnxruntime.*pip install "pytest-robustness\[onnx\]"'):
        libraries.import_library("onnxruntime")
    monkeypatch.setattr(source_files, "find_module_file", lambda *_: None)
    with pytest.raises(CardError, match=r'not installed; pip install "pytest-robustness\[timm\]"'):
        card(tmp_path, 'factory = "timm:resnet18"', "seed = 0")


# What a model takes and gives


class Result:
    """What a library of no dictionaries gives."""

    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("given", "output"),
    [
        (lambda x: x, None),
        (lambda x: (x, x * 0), None),
        (lambda x: [x, "auxiliary"], None),
        (Result, None),
        (lambda x: {"logits": x, "features": x * 0}, None),
        (lambda x: {"out": x}, None),
        (lambda x: {"a": x * 0, "b": x}, "b"),
        (lambda x: (x * 0, x), 1),
        (Result, "logits"),
    ],
)
def test_outputs_in_every_form(given, output):
    logits = torch.rand(2, 3)
    assert torch.equal(extract_logits(given(logits), output), logits)


@pytest.mark.parametrize(
    ("given", "output", "message"),
    [
        (
            {"a": torch.zeros(1), "b": torch.zeros(1)},
            None,
            r"with the entries a, b; name the logits in model\.logits_key",
        ),
        ({"a": torch.zeros(1)}, "c", r"model\.logits_key = 'c': the model returns dict with a"),
        ((torch.zeros(1),), 1, r"model\.logits_key = 1: the model returns tuple"),
        ({"a": 3}, "a", r"model\.logits_key = 'a' must be a tensor of logits, got int"),
        (3.5, None, "must return a tensor, .* got float"),
        ((), None, "must return a tensor, .* got tuple"),
    ],
)
def test_outputs_that_are_none(given, output, message):
    with pytest.raises(ModelError, match=message):
        extract_logits(given, output)


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, gives="tuple", axis=1):
        super().__init__()
        self.gives, self.axis = gives, axis
        self.last = nn.Linear(784, 10)
    def forward(self, images):
        assert images.shape[self.axis] == 1, images.shape
        logits = self.last(images.flatten(1))
        return {"tuple": (logits, images), "table": {"main": logits, "auxiliary": -logits}}[self.gives]

class Two(Net):
    def forward(self, images, tokens): ...
"""


def test_a_card_names_the_entry_the_layout_and_the_normalisation(tmp_path):
    """Catches: the other entry (whose predictions are the least likely classes), channels that stay first."""
    lines = ['factory = "table_net:Net"', "seed = 0", 'arguments = { gives = "table", axis = 3 }', 'layout = "NHWC"']
    lines += ["preprocessing = { mean = [0.5], std = [0.25] }"]
    made = card(tmp_path, *lines, 'logits_key = "main"', table_net=NET)
    of = open_workspace(tmp_path)
    evidence, model = of.evidence(made, "fgsm"), of.classifier(made).module
    assert evidence.status == ("ok",)
    assert "found: normalised in its first layer by mean 0.5, std 0.25, as the card says" in of.notices
    inputs = torch.from_numpy(of.images(made).batch(0, 20))
    with torch.inference_mode():
        due = unwrap(model).last((inputs.flatten(1) - 0.5) / 0.25).argmax(1)
    assert of.evidence(made).predictions[0].tolist() == due.tolist()
    silent = card(tmp_path, 'factory = "table_net:Net"', "seed = 0")  # whose tuple needs no word in the card
    assert open_workspace(tmp_path).evidence(silent, "fgsm").status == ("ok",)
    two = card(tmp_path, 'factory = "table_net:Two"', "seed = 0")
    with pytest.raises(
        ModelError, match=r"table_net:Two: a classifier must take images alone, .* needs images, tokens;"
    ):
        open_workspace(tmp_path).classifier(two)
    unnamed = card(tmp_path, *lines, table_net=NET)
    with pytest.raises(ModelError, match=r"entries main, auxiliary; name the logits in model\.logits_key"):
        open_workspace(tmp_path).evidence(unnamed)


RECIPE = """
import torch

def train(module, images, job):
    inputs = torch.from_numpy(images.batch(0, 4))
    with torch.no_grad():
        module.model.last.weight[:] = (inputs - 0.5).flatten(1)[:1] / 0.25
        assert torch.allclose(module(inputs[:1])[0, 0] - module.model.last.bias[0],
                              module.model.last.weight[0].square().sum())
    return module
"""


def test_a_recipe_trains_behind_the_normalisation_and_keeps_the_models_own_weights(tmp_path):
    """Catches: a model that is trained on other images than it is tested on, and weights that do not fit it again."""
    made = card(tmp_path, 'factory = "trained_net:Net"', "preprocessing = { mean = 0.5, std = 0.25 }", "[recipe]",
                'callable = "trained_recipe:train"', trained_net=NET, trained_recipe=RECIPE)  # fmt: skip
    of = open_workspace(tmp_path)
    model = of.classifier(made).module
    assert list(unwrap(model).state_dict()) == ["last.weight", "last.bias"]
    first = torch.from_numpy(of.images(made, "train").batch(0, 1))
    torch.testing.assert_close(unwrap(model).last.weight[0].detach(), ((first - 0.5) / 0.25).flatten())


def test_grey_for_colour_and_colour_for_grey():
    """Catches: channels that are summed, or of which one is taken. Pillow's conversion is the oracle."""
    grey = torch.rand(2, 1, 3, 3)
    assert torch.equal(convert_channels(grey, 3), torch.cat([grey] * 3, 1))
    assert convert_channels(grey, 1) is grey
    assert convert_channels(grey, None) is grey
    pixels = colours(1)
    due = np.asarray(Image.fromarray(pixels[0]).convert("L"))
    got = convert_channels(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), 1)[0, 0]
    np.testing.assert_allclose(got.numpy(), due, atol=0.6)
    with pytest.raises(ModelError, match="takes images of 3 channels, got 4"):
        convert_channels(torch.rand(1, 4, 2, 2), 3)


def test_what_stands_around_a_model_leaves_it_and_its_images_alone():
    """Catches: normalisation in place, whose images the next strength would begin with; weights under other names."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model = AdaptedModel(net, normalisation=Normalisation(mean=(0.5,), std=(0.5,)), channels=3)
    inputs = torch.rand(2, 1, 2, 2)
    before = inputs.clone()
    model(inputs.requires_grad_()).sum().backward()
    assert torch.equal(inputs.detach(), before)
    assert inputs.grad is not None
    assert list(unwrap(model).state_dict()) == ["1.weight", "1.bias"]
    three = AdaptedModel(nn.Flatten(), normalisation=Normalisation(mean=(0.1, 0.2, 0.3), std=(1, 1, 1)))
    with pytest.raises(ModelError, match=r"of 3 channels, the images have 1; .* model\.channels"):
        three(torch.zeros(1, 1, 2, 2))


def test_loading_a_card_imports_none_of_the_libraries():
    code = (
        "import sys; from robustness import cards; from robustness.classifiers import preprocessing, checkpoints\n"
        "print([name for name in ('torch', 'timm', 'transformers', 'onnxruntime') if name in sys.modules])"
    )
    assert helpers.run(code) == "[]\n"


@pytest.mark.parametrize("location", ["net.data", "parts/net.bin"])
@pytest.mark.parametrize("part", ["graph", "branch", "constant"])
@pytest.mark.parametrize("name", ["net.onnx", "net.model"])
def test_tensors_beside_an_onnx_file_are_its_weights(tmp_path, location, part, name):
    """Catches: the same graph with other numbers beside it taken for the same model."""
    file = onnx_apart(tmp_path, 0, location=location, part=part, name=name)
    assert weights.all_files(file) == [file, tmp_path / location]
    graph, first = file.read_bytes(), weights.content_hash(file)
    onnx_apart(tmp_path, 1, location=location, part=part, name=name)
    assert file.read_bytes() == graph
    assert weights.content_hash(file) != first


def test_an_onnx_file_without_its_tensors_or_with_some_from_elsewhere_is_refused(tmp_path):
    """Catches: a hash of half a model; a file anywhere on the machine read for a model's."""
    file = onnx_apart(tmp_path, 0)
    content = file.read_bytes()
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"its tensors are in net\.data, which is missing"):
        weights.content_hash(file)
    for elsewhere in (b"/net.dat", b"../n.dat"):
        file.write_bytes(content.replace(b"net.data", elsewhere))
        with pytest.raises(ModelError, match="is outside of its folder"):
            weights.content_hash(file)


def test_any_other_bytes_are_one_file(tmp_path):
    """Catches: a torn or foreign file that the reader of fields crashes or hangs on."""
    whole = onnx_apart(tmp_path, 0).read_bytes()
    file, draws = tmp_path / "torn.onnx", np.random.default_rng(0)
    (tmp_path / "net.data").unlink()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with contextlib.suppress(ModelError):
            assert weights.all_files(file) == [file]
    for _ in range(500):
        file.write_bytes(draws.bytes(int(draws.integers(0, 200))))
        assert weights.all_files(file) == [file]


def test_every_file_of_a_folder_that_its_library_may_read_is_in_the_key(tmp_path):
    """Catches: other shards, or weights under a name that only config.json says, under the key of the first ones."""
    folder = vit_folder(tmp_path / "vit")
    (folder / "model.safetensors").rename(folder / "shard-1.safetensors")
    from safetensors import safe_open

    with safe_open(folder / "shard-1.safetensors", "pt") as file:
        names = list(file.keys())
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "shard-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("a model")
    (folder / "generation_config.json").write_text("{}")

    def key():
        of = card(tmp_path, 'factory = "hf:../vit"')
        return json.dumps([of.described, weights.content_hash(of.weights)], sort_keys=True)

    first, seen = key(), []
    for name in sorted(path.name for path in folder.iterdir()):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if name.endswith("safetensors") else content + b" ")
        seen += [name] if key() != first else []
        path.write_bytes(content)
    assert seen == sorted({path.name for path in folder.iterdir()} - {"README.md"})


def test_other_tensors_beside_an_onnx_file_are_measured_anew(tmp_path):
    """Catches: a model retrained badly that stays green, because its graph is the same."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "models").mkdir()
    images = helpers.digits()
    for seed in (0, 1):
        onnx_apart(tmp_path / "models", seed)
        of = card(tmp_path, 'factory = "onnx:net.onnx"')
        found = open_workspace(tmp_path, images, of).evidence(of).predictions[0]
        with torch.inference_mode():
            logits = helpers.linear(images, seed).eval()(torch.from_numpy(images.batch(0, len(images))))
        assert np.array_equal(found, logits.argmax(1).numpy())
