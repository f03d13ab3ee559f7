"""Pictures opened by Pillow: whatever is wrong with one is a DataError, and no warning becomes an error."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from robustness.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read. Pillow knows more: PostScript is a program that it has Ghostscript run, whatever a file is called."""
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
    """Return those of the formats that are read which this Pillow was built with."""
    from PIL import Image

    with silence_pillow():
        Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
