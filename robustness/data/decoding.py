"""Decode pictures, from files or rows of a table, with Pillow: whatever is wrong with one is a DataError."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from robustness.data.validation import Array
from robustness.errors import DataError
from robustness.util import file_formats

if TYPE_CHECKING:
    from PIL import Image


SIDE = 2**14
"""Pixels of a side at most: more is a slip of the pen, and would fill the memory."""
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values that swap height and width."""

Side = Annotated[int, Strict(), Field(ge=1, le=SIDE)]


class Decoding(BaseModel):
    """
    ``[data.images]``: how pictures are decoded, and which are used.

    ``resize`` is the shorter side, in torchvision's sense; ``size`` the height and width that are then cut out of the
    middle (``crop`` = "center", after a resize that just covers them if none is asked for) or that the whole picture
    is brought to ("none"). ``exif`` = "ignore" leaves pictures as they lie, as torchvision's ImageFolder does.

    >>> Decoding(resize=256, size=(224, 224)).shape_of(640, 480)
    (224, 224)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    resize: Side | None = None
    """The shorter side, in pixels."""
    size: Annotated[tuple[Side, Side], Strict(False)] | None = None
    """Height and width, cut out of the middle or brought to."""
    crop: Literal["center", "none"] = "center"
    """``center`` cuts them out of the middle, ``none`` brings the whole picture to them."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """Between pixels, when a picture is resized."""
    mode: Literal["RGB", "L"] = "RGB"
    """Colour or grey."""
    exif: Literal["ignore", "apply"] = "ignore"
    """``apply`` rotates pictures by their EXIF orientation."""
    column: str | None = None
    """Of a table that has several: the one that holds the pictures."""
    skip_unreadable: bool = False
    """Whether pictures that cannot be read are left out, counted and named, and no error."""
    follow_links: bool = False
    """Whether links that lead out of the folder are followed."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.size is None and self.crop == "none" and "crop" in self.model_fields_set:
            raise ValueError("`size` must be given with `crop` = 'none', as [height, width], or leave `crop` out")
        if self.resize is not None and self.size is not None:
            if self.crop == "none":
                raise ValueError(
                    "`resize` must be left out with `crop` = 'none', which resizes pictures to `size` directly"
                )
            if max(self.size) > self.resize:
                raise ValueError(
                    f"`size` must fit into the result of `resize`, got {list(self.size)} and {self.resize}; use a "
                    "larger `resize`"
                )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Everything besides the pictures that the pixels depend on."""
        return self.model_dump(include={"resize", "size", "crop", "interpolation", "mode", "exif"})

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that a picture is resized to before the crop."""
        if self.resize is not None:
            short, long = self.resize, int(self.resize * max(width, height) / min(width, height))
            return (short, long) if width <= height else (long, short)
        if self.size is None:
            return width, height
        high, wide = self.size
        if self.crop == "none":
            return wide, high
        if wide * height >= high * width:
            return wide, max(high, int(wide * height / width))
        return max(wide, int(high * width / height)), high

    def shape_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the height and width that a picture of this size has after decoding."""
        wide, high = self.resized(width, height)
        return self.size or (high, wide)


class ImageInfo(NamedTuple):
    """The properties of one picture; ``problem`` says why it cannot be used, or is ""."""

    content: str
    width: int
    height: int
    mode: str
    frames: int
    orientation: int
    problem: str


def version() -> str:
    """Return everything besides the picture that an inspection depends on."""
    import PIL
    from PIL import Image, ImageFile

    return f"2, Pillow {PIL.__version__}, {Image.MAX_IMAGE_PIXELS}, {ImageFile.LOAD_TRUNCATED_IMAGES}"


def inspect_image(content: bytes | memoryview) -> ImageInfo:
    """
    Read a complete picture, and return its properties or why it cannot be used.

    A JPEG is decoded at an eighth of its size, which reads all of it.

    >>> inspect_image(b"GIF89a").problem
    'it is not a complete picture that Pillow can read'
    """
    digest = hashlib.sha256(content).hexdigest()
    try:
        with open_image(content) as image:
            (width, height), mode, frames = image.size, image.mode, int(getattr(image, "n_frames", 1))
            image.draft(None, (1, 1))
            image.load()
            return ImageInfo(digest, width, height, mode, frames, _orientation(image), "")
    except DataError as error:
        return ImageInfo(digest, 0, 0, "", 1, 1, (len(content) and file_formats.mistaken(content)) or str(error))


def decode(content: bytes | memoryview, decoding: Decoding) -> Array:
    """
    Decode one picture to bytes, (H, W, 3) or (H, W); of an animation the first frame.

    As torchvision's ImageFolder does: converted before it is resized, an alpha channel dropped.

    >>> decode(b"", Decoding())
    Traceback (most recent call last):
    robustness.errors.DataError: it is not a complete picture that Pillow can read
    """
    from PIL import Image, ImageOps

    with open_image(content) as image:
        image.load()
        turned = ImageOps.exif_transpose(image) if decoding.exif == "apply" else image
        wide, high = decoding.resized(*turned.size)
        if wide * high > SIDE**2:  # a picture that is a thousand times as wide as it is high
            raise DataError(f"it has {wide:,} x {high:,} pixels before cropping, more than {SIDE**2:,}")
        resized = turned.convert(decoding.mode).resize((wide, high), Image.Resampling[decoding.interpolation.upper()])
    if decoding.size is None:
        return np.asarray(resized)
    (high, wide), (width, height) = decoding.size, resized.size
    left, top = round((width - wide) / 2), round((height - high) / 2)
    return np.asarray(resized.crop((left, top, left + wide, top + high)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data are no reason to refuse a picture
        return 1


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read. Pillow knows more, but PostScript is a program, which Ghostscript would execute."""
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}

_quiet, _lock = 0, threading.Lock()
_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def open_image(content: bytes | memoryview) -> Iterator[Image.Image]:
    """
    Open a picture; DataError says why it cannot be used, also if only decoding fails.

    >>> with open_image(b"GIF89a") as image:
    ...     image.load()
    Traceback (most recent call last):
    robustness.errors.DataError: it is not a complete picture that Pillow can read
    """
    from PIL import Image, UnidentifiedImageError

    if bytes(content[:4]) in POSTSCRIPT:
        raise DataError(
            f"it is PostScript, a program, which is not executed; convert it to one of {', '.join(FORMATS)}"
        )
    try:
        with silence_pillow(), Image.open(io.BytesIO(content), formats=_formats()) as image:
            width, height = image.size
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and width * height > most:
                raise DataError(f"it is too large to be decoded: {width:,} x {height:,} pixels, more than {most:,}")
            if image.mode not in EIGHT_BITS:
                raise DataError(f"it has more than 8 bits per channel (Pillow's mode {image.mode}); convert it")
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"it is too large to be decoded: {_first_line(error)}") from error
    except Exception as error:  # what decoders raise for damaged files is of many kinds
        unknown = isinstance(error, UnidentifiedImageError) or not str(error)
        why = "" if unknown else f" ({_first_line(error)})"
        raise DataError(f"it is not a complete picture that Pillow can read{why}") from error


@contextmanager
def silence_pillow() -> Iterator[None]:
    """
    Keep Pillow from warning of damaged EXIF data and large pictures meanwhile, in all threads.

    Filters are the process's, and `warnings.catch_warnings` in several threads leaves them in disorder.
    """
    global _quiet
    with _lock:
        _quiet += 1
        if _FILTER not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if not _quiet and _FILTER in warnings.filters:
                warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]


@cache
def _formats() -> list[str]:
    """Return the readable formats that this Pillow was built with."""
    from PIL import Image

    with silence_pillow():
        Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
