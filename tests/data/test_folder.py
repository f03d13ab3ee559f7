"""Image folders: what torchvision's own pipeline makes of them, which parts they have, what is refused or said."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import encoded, folder, get, picture
from PIL import Image, features

from robustness.data.decoding import silence_pillow
from robustness.errors import DataError, DataMissing


@pytest.fixture
def pets(tmp_path):
    return folder(tmp_path / "pets")


# What torchvision makes of the same folder


@pytest.mark.parametrize(
    "table",
    [
        {"resize": 28, "size": [24, 24]},
        {"size": [24, 24]},
        {"resize": 31, "size": [20, 29], "interpolation": "bicubic"},
        {"size": [17, 41], "crop": "none", "interpolation": "nearest"},
        {"size": [21, 21], "interpolation": "lanczos", "mode": "L"},
    ],
)
def test_pixels_are_those_of_torchvision(pets, table):
    """Catches: a resize after the crop, another rounding of sizes or places, another filter, channels turned."""
    from robustness.util.torchvision_compat import datasets, transforms

    ways = transforms.InterpolationMode
    way = {"nearest": ways.NEAREST, "bicubic": ways.BICUBIC, "lanczos": ways.LANCZOS}.get(
        table.get("interpolation"), ways.BILINEAR
    )
    short = table.get("resize", table["size"][0])
    resize = transforms.Resize(table["size"] if table.get("crop") == "none" else short, way)
    grey = [transforms.Lambda(lambda image: image.convert("L"))] if table.get("mode") == "L" else []
    due = datasets.ImageFolder(
        pets, transforms.Compose([*grey, resize, transforms.CenterCrop(table["size"]), transforms.PILToTensor()])
    )
    images = get(pets, images=table)
    assert images.classes == tuple(due.classes)
    assert images.labels.tolist() == due.targets
    expected = np.stack([image.numpy() for image, _ in due])
    assert np.array_equal(images.stored(0, len(images)), expected)
    assert np.array_equal(images.batch(1, 4), expected[1:4].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("end", "form"),
    [
        *((form.upper(), form) for form in ("png", "jpeg", "bmp", "webp", "tiff", "ppm", "gif")),
        ("jfif", "jpeg"),
        ("JPE", "jpeg"),
        ("avif", "avif"),
        ("dib", "bmp"),
    ],
)
def test_pictures_of_every_usual_ending_are_read(tmp_path, end, form):
    """Catches: a form whose name is passed over."""
    if form == "avif" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    top = folder(tmp_path / "pets")
    (top / "cat" / f"more.{end}").write_bytes(encoded(picture(7), form))
    images = get(top)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.notes == ()


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (picture(1, mode="L"), {}),
        (picture(1).convert("P"), {"transparency": bytes(range(256))}),
        (picture(1).convert("RGBA"), {}),
        (picture(1, mode="L").convert("LA"), {}),
        (picture(1, mode="L").convert("1"), {}),
    ],
    ids=["grey", "palette", "alpha", "grey-alpha", "bits"],
)
def test_other_modes_become_what_image_folder_gives(image, options, tmp_path):
    """Catches: an alpha channel that is blended, a palette's numbers taken for grey, a warning raised."""
    from robustness.util.torchvision_compat import datasets

    top = folder(tmp_path / "pets", {"cat": [(40, 30)], "dog": [(40, 30)]})
    file = top / "cat" / "0.png"
    file.write_bytes(encoded(image, **options))
    with silence_pillow():  # torchvision does not keep Pillow from warning
        due = np.asarray(datasets.folder.pil_loader(file))
    images = get(top, images={})
    assert np.array_equal(images.stored(0, 1)[0], due.transpose(2, 0, 1))


def test_turned_pictures_stay_so_unless_asked_and_are_counted(tmp_path):
    """Catches: EXIF applied by default, unlike ImageFolder; height and width not swapped with it."""
    top = folder(tmp_path / "pets", {"cat": [(40, 30)], "dog": [(40, 30), (30, 40)]})
    lying = picture(5, (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    (top / "cat" / "0.png").unlink()
    (top / "cat" / "0.jpg").write_bytes(encoded(lying, "jpeg", exif=exif, quality=100))
    images = get(top)
    assert any(
        "1 of 3 pictures are rotated according to EXIF" in note and "'cat/0.jpg'" in note for note in images.notes
    )
    upright = get(top, images={"size": [40, 30], "crop": "none", "exif": "apply"})
    assert not any("EXIF" in note for note in upright.notes)
    found = upright.stored(0, 1)[0].transpose(1, 2, 0)
    assert np.array_equal(found, np.rot90(np.asarray(Image.open(top / "cat" / "0.jpg")), -1)), "turned clockwise"
    assert upright.fingerprint != get(top, images={"size": [40, 30], "crop": "none"}).fingerprint


# Parts


def test_a_folder_alone_is_tested_on_as_a_whole_and_trains_by_split(pets):
    """Catches: a test set that asks for a training part; a training on what is tested."""
    assert len(get(pets)) == 5
    assert get(pets).classes == ("cat", "dog")
    with pytest.raises(DataError, match="`split` must be other than 'predefined' for pets, which has no train part"):
        get(pets, "train")
    split = {"kind": "balanced", "per_class": 1}
    train, test = get(pets, "train", split=split), get(pets, split=split)
    assert sorted([*train.rows, *test.rows]) == list(range(5))
    assert np.array_equal(test.stored(1, 2), get(pets).stored(int(test.rows[1]), int(test.rows[1]) + 1))


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_parts_by_name(tmp_path, name):
    """Catches: parts taken for classes; a class that only the training part has."""
    top = tmp_path / "pets"
    folder(top / "train", {"ant": [(30, 30)], "cat": [(30, 30)], "dog": [(30, 30)]})
    folder(top / name, {"cat": [(40, 40)], "dog": [(40, 40), (41, 41)]})
    train, test = get(top, "train"), get(top)
    assert train.classes == test.classes == ("ant", "cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [1, 2, 2])
    assert test.name == f"pets {name}"


def test_who_tests_does_not_look_at_training_pictures(tmp_path):
    """Catches: both parts read where one is asked for, which of millions of training pictures takes hours."""
    top = tmp_path / "pets"
    folder(top / "train")
    folder(top / "test")
    (top / "train" / "cat" / "0.png").write_bytes(b"damaged")
    assert len(get(top)) == 5
    with pytest.raises(DataError, match=r"1 of 5 pictures cannot be used: 'cat/0\.png'"):
        get(top, "train")


def test_both_parts_joined_are_both_in_their_order(tmp_path):
    """Catches: places of the second part looked up in the first."""
    top = tmp_path / "pets"
    folder(top / "train", {"cat": [(30, 30), (31, 31)], "dog": [(32, 32)]})
    folder(top / "test", {"cat": [(33, 33)], "dog": [(34, 34), (35, 35)]})
    split = {"kind": "balanced", "per_class": 1}
    train, test = get(top, "train", pool="all", split=split), get(top, pool="all", split=split)
    assert (len(train), len(test)) == (4, 2)
    parts = np.concatenate([get(top, "train").stored(0, 3), get(top).stored(0, 3)])
    for side in (train, test):
        assert np.array_equal(side.stored(0, len(side)), parts[side.rows])


def test_a_testing_part_alone(tmp_path):
    folder(tmp_path / "pets" / "val")
    assert len(get(tmp_path / "pets")) == 5
    with pytest.raises(DataError, match="pets val has no train part"):
        get(tmp_path / "pets", "train")
    with pytest.raises(DataError, match="`pool` = 'train' needs a train part"):
        get(tmp_path / "pets", split={"kind": "balanced", "per_class": 1})


def test_files_that_are_passed_over_by_their_names_are_counted(tmp_path):
    """Catches: half of the pictures left out without a word."""
    top = folder(tmp_path / "pets")
    for i in range(3):
        (top / "cat" / f"bare{i}").write_bytes(encoded(picture(i)))
        (top / "dog" / f"{i}.HEIC").write_bytes(b"heic")
    (top / "dog" / "notes.txt").write_text("dogs")
    for litter in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (top / "dog" / litter).write_bytes(b"litter")
    images = get(top)
    assert len(images) == 5
    (note,) = images.notes
    assert note.startswith(
        "pets: 7 files were ignored because of their names: no suffix (3), .heic (3), .txt (1); pictures"
    )


def test_a_class_without_pictures_counts_as_a_class_and_is_said(tmp_path):
    """Catches: a class whose folder runs empty, which shifts the numbers of all that follow or cannot be tested."""
    top = folder(tmp_path / "pets", {"ant": [(30, 30)], "dog": [(30, 30)], "eel": [(30, 30)]})
    (top / "bee").mkdir()
    images = get(top)
    assert images.classes == ("ant", "bee", "dog", "eel")
    assert images.labels.tolist() == [0, 2, 3]
    assert images.notes == ("pets: 1 of 4 classes have no pictures, but count as classes: 'bee'",)
    for name in ("ant", "dog", "eel"):
        (top / name / "0.png").unlink()
    with pytest.raises(DataError, match="its folders of classes have no pictures"):
        get(top)


def test_a_part_of_a_folder_is_chosen(tmp_path):
    top = tmp_path / "pets"
    folder(top / "train")
    folder(top / "test", {"cat": [(30, 30)], "dog": [(30, 30)]})
    folder(top / "validation", {"cat": [(31, 30)], "dog": [(30, 31), (30, 30)]})
    assert (get(top).name, len(get(top))) == ("pets test", 2)
    chosen = get(top, part="validation")
    assert (chosen.name, len(chosen)) == ("pets validation", 3)
    folder(top / "extra", {"cat": [(30, 30)], "dog": [(30, 30)]})
    with pytest.raises(DataError, match=r"only parts or only classes, but beside .* lies 'extra'; .*`part` = \"test\""):
        get(top)
    extra = get(top, part="extra")
    assert (extra.name, extra.classes) == ("pets extra", ("cat", "dog"))


# What is refused


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def damaged(file):
    file.write_bytes(file.read_bytes()[:-200])


def bomb(file):
    """A file of a few bytes that says it has 30,000 × 30,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def large(file):
    """Below what Pillow refuses, above what it warns of."""
    Image.new("1", (10_000, 9_000)).save(file)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, "not a complete picture that Pillow can read"),
        (bomb, "too large to be decoded"),
        (large, r"too large to be decoded: 10,000 x 9,000 pixels, more than 89,478,485"),
        (lambda file: file.write_bytes(b""), "not a complete picture that Pillow can read"),
        (lambda file: file.write_text(POINTER), r"it is a Git LFS pointer, .* git lfs pull"),
        (lambda file: file.write_text("<svg/>"), "not a complete picture that Pillow can read"),
        (
            lambda file: Image.fromarray(np.ones((30, 30), np.uint16)).save(file),
            r"more than 8 bits .* \(Pillow's mode I;16",
        ),
        (lambda file: (file.unlink(), file.symlink_to("gone.png")), "cannot be read: No such file"),
    ],
    ids=["truncated", "bomb", "large", "empty", "pointer", "text", "16-bit", "dangling"],
)
def test_what_cannot_be_used_is_named_and_left_out_on_request_alone(pets, spoil, reason):
    """Catches: a file that is skipped in silence, or that is found out in the middle of a sweep."""
    whole = get(pets).stored(0, 5)
    spoil(pets / "dog" / "1.png")
    with pytest.raises(DataError, match=rf"pets: 1 of 5 pictures cannot be used: 'dog/1\.png': .*{reason}") as error:
        get(pets)
    assert "skip_unreadable" in str(error.value)
    kept = get(pets, images={"size": [24, 24], "skip_unreadable": True})
    assert kept.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(kept.stored(0, 4), np.delete(whole, 3, axis=0))
    assert any("1 of 5 pictures cannot be used and are left out: 'dog/1.png'" in note for note in kept.notes)


def test_all_unreadable_is_no_data_set(pets):
    for file in pets.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"5 of 5 .* 'cat/0\.png': .*, 'cat/1\.png': .*, 'dog/0\.png': .*, …"):
        get(pets)
    with pytest.raises(DataError, match="at least one usable picture, it has none among 5"):
        get(pets, images={"size": [24, 24], "skip_unreadable": True})


def test_a_truncated_jpeg_is_found_though_it_is_looked_at_small(pets):
    """Catches: a look that stops where the small picture is complete."""
    noisy = encoded(picture(3, (640, 480)), "jpeg", quality=95)
    (pets / "cat" / "cut.jpg").write_bytes(noisy[: len(noisy) * 9 // 10])
    with pytest.raises(DataError, match=r"'cat/cut\.jpg': .*truncated"):
        get(pets)


def drop_classes(top):
    for name in ("cat", "dog"):
        shutil.rmtree(top / name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda top: picture(1).save(top / "stray.png"),
            r"pictures only in its folders of classes, but 1 lie beside them: 'stray\.png'",
        ),
        (lambda top: folder(top, {"Dog": [(30, 30)]}), "differ by more than capital letters, got 'Dog' and 'dog'"),
        (lambda top: folder(top, {"two\nlines": [(30, 30)]}), r"must be printable text, got 'two\\nlines'"),
        (lambda top: folder(top, {" ": [(30, 30)]}), "must be printable text, got ' '"),
        (lambda top: Path(os.fsdecode(os.fsencode(top) + b"/\xff")).mkdir(), r"must be printable text, got '\\udcff'"),
        (lambda top: shutil.rmtree(top / "dog"), "at least two classes, it has 1, 'cat'; use the folder above it"),
        (lambda top: (shutil.rmtree(top), top.mkdir()), "at least two classes, it has 0"),
        (lambda top: shutil.rmtree(top), r"no \./pets in .* does not exist"),
        (
            lambda top: (shutil.rmtree(top), top.touch()),
            r"`folder` must be a folder, got the file .*pets; for an \.npz",
        ),
        (
            lambda top: (
                folder(top / "train"),
                folder(top / "test", {"cat": [(30, 30)], "ewe": [(30, 30)]}),
                drop_classes(top),
            ),
            "among those of the training part, but 1 are not: 'ewe'",
        ),
    ],
    ids=["beside", "case", "newline", "blank", "bytes", "one", "empty", "missing", "file", "unknown to training"],
)
def test_folders_that_are_no_classes_are_refused(pets, spoil, message):
    spoil(pets)
    with pytest.raises(DataError, match=message) as caught:
        get(pets)
    assert isinstance(caught.value, DataMissing) == ("does not exist" in message), "missing data is skipped, not red"


def test_names_that_break_tables_are_classes_like_others(tmp_path):
    """Catches: a name that is cut, escaped or split on its way from the folder to the evidence."""
    names = ["<b>x", "a|b", "l" * 200, "ünï"]
    top = folder(tmp_path / "pets", {name: [(30, 30)] for name in names})
    (top / "a|b" / "0.png").rename(top / "a|b" / f"{'f' * 240}\n.png")
    assert get(top).classes == tuple(sorted(names))
    (top / "a|b" / f"{'f' * 240}\n.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"'a\|b/ff+…f+\\n\.png'") as error:
        get(top)
    assert len(str(error.value).splitlines()) == 1


def test_links_that_leave_the_folder_are_refused_unless_asked_for(tmp_path):
    """Catches: pictures of elsewhere taken in silence, a loop of folders that never ends."""
    top = folder(tmp_path / "pets")
    other = folder(tmp_path / "others")
    (top / "cat" / "self").symlink_to(top / "cat")
    (top / "cat" / "again.png").symlink_to(top / "cat" / "0.png")
    assert len(get(top)) == 6
    for target in ("dog/0.png", "dog"):
        (top / "dog" / "link").symlink_to(other / target)
        with pytest.raises(DataError, match=r"'dog/link' is a link to .*others/dog.*, which lies outside"):
            get(top)
        (top / "dog" / "link").unlink()
    (top / "dog" / "link.png").symlink_to(other / "dog" / "0.png")
    (top / "dog" / "more").symlink_to(other / "dog")
    assert len(get(top, images={"size": [24, 24], "follow_links": True})) == 10


def test_hidden_files_are_passed_over_and_depth_does_not_matter(pets):
    (pets / ".checkpoints").mkdir()
    (pets / "__MACOSX").mkdir()
    (pets / "cat" / "._0.png").write_bytes(b"\0")
    (pets / "cat" / "deep" / "er").mkdir(parents=True)
    picture(9).save(pets / "cat" / "deep" / "er" / "x.png")
    assert get(pets).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_sizes_must_come_to_one(pets):
    with pytest.raises(DataError, match=r"'cat/0\.png' has 30 x 40, 4 others differ: 'cat/1\.png' 40 x 30, .*, …; set"):
        get(pets, images={})
    with pytest.raises(DataError, match="`size` = "):
        get(pets, images={"resize": 30})


def test_unusual_pictures_are_counted_and_named(pets):
    """Catches: grey, animated or see-through pictures, or one in two classes, that nobody is told of."""
    assert get(pets).notes == (), "usual ones need no word"
    picture(1, mode="L").save(pets / "cat" / "grey.png")
    frames = [picture(seed) for seed in range(3)]
    frames[0].save(pets / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    picture(1).convert("RGBA").save(pets / "dog" / "glass.png")
    (pets / "dog" / "copy.png").write_bytes((pets / "cat" / "0.png").read_bytes())
    (pets / "dog" / "again.png").write_bytes((pets / "dog" / "0.png").read_bytes())
    images = get(pets)
    for said in (
        "1 of 10 pictures are grey, while others are in colour: 'cat/grey.png'",
        "1 of 10 pictures are animated; only their first frame is used: 'cat/moving.gif'",
        "1 of 10 pictures have an alpha channel, which is dropped: 'dog/glass.png'",
        "1 of 10 pictures are duplicated with another label, byte for byte: 'dog/copy.png' as 'cat/0.png'",
        "1 of 10 pictures are duplicated, byte for byte: 'dog/again.png' as 'dog/0.png'",
    ):
        assert f"pets: {said}" in images.notes
    assert len(images.notes) == 5
