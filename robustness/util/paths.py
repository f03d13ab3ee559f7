"""Files from outside: safe names, regular files, links, and limits on nesting."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from robustness.errors import RobustnessError, shown

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
LONGEST = 100
"""Characters of a name: file systems take 255 bytes, and suffixes are added."""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for its devices, whatever suffix follows."""
DEPTH = 64
"""Tables and lists within each other: code that walks through them calls itself, and Python bounds that."""


def check_name(name: str) -> str:
    """
    Return a name that is safe as a part of a path on every file system.

    Args:
        name: The name of a model in a card or an option.

    Returns:
        The name itself.

    Raises:
        ValueError: It is empty, longer than 100 characters, begins with a point or a hyphen, or has a character other
            than letters, digits, ``.``, ``_`` and ``-``; or Windows keeps it for a device.

    >>> check_name("digits-mlp")
    'digits-mlp'
    >>> check_name("../x")
    Traceback (most recent call last):
    ValueError: must consist of letters (a-z), digits, '.', '_' and '-', and start with neither '.' nor '-'
    """
    if len(name) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, got {len(name):,}")
    if not NAME.fullmatch(name):
        raise ValueError("must consist of letters (a-z), digits, '.', '_' and '-', and start with neither '.' nor '-'")
    if name.endswith(".") or RESERVED.fullmatch(name):
        raise ValueError("must be a valid file name on Windows: no device such as 'nul', and no '.' at the end")
    return name


def place(folder: Path, name: str, suffix: str) -> Path:
    """
    Return the file of a name in a folder; ValueError if the name would lead elsewhere.

    >>> place(Path("baselines"), "digits-mlp", ".json").name
    'digits-mlp.json'
    """
    return folder / f"{check_name(name)}{suffix}"


def as_name(text: str) -> str:
    """
    Return a text as a name that `check_name` accepts; "model" if no character is allowed.

    >>> as_name("my net [v2].0"), as_name("größe"), as_name("../..")
    ('my-net-v2-.0', 'gr-e', 'model')
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LONGEST].strip(".-")
    return "model" if not name or RESERVED.fullmatch(name) else name


def read_bytes(path: Path, *, follow: bool = True) -> bytes:
    """
    Return the content of a regular file.

    Reading a pipe could wait for ever, and a device may have no end.

    Args:
        path: The file.
        follow: Whether a link is followed; else it is refused.

    Raises:
        OSError: It is a pipe, a device, a socket or a folder; or it cannot be read.
    """
    check_regular(path, follow=follow)
    # It may be another file by now: it is opened so that nothing is waited for, and looked at once more.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0))), "rb") as stream:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return stream.read()


def check_regular(path: Path, *, follow: bool = True) -> None:
    """Raise OSError unless a path is a regular file, or a link to one where links are followed."""
    mode = (path.stat() if follow else path.lstat()).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link"}
        raise OSError(errno.EINVAL, f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file", str(path))


def missing(path: Path) -> str:
    """
    Return why a path is no readable file, as a predicate; "" if it is one.

    >>> missing(Path("/no/such"))
    'does not exist'
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def exists(path: Path) -> bool:
    """Return whether a path exists; False if no file system could have it."""
    try:
        return path.exists()
    except OSError:
        return False


def expanded(path: str) -> Path:
    """
    Return a path with the home folder in place of ``~``.

    Raises:
        RobustnessError: There is no home folder, or a name in it is longer than file systems take.
    """
    if why := too_long(path):
        raise RobustnessError(f"{shown(path)}: {why}")
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError):
        raise RobustnessError(f"{shown(path)}: there is no home folder; write the full path") from None


def too_long(path: str) -> str:
    """
    Return why a path is invalid (its length, or a NUL); "" if it is valid.

    >>> too_long("x" * 300), too_long("a/b")
    ('a name in it has 300 bytes, but file systems allow 255', '')
    """
    longest = max(len(os.fsencode(part)) for part in re.split(r"[/\\]", path))
    if longest > 255:
        return f"a name in it has {longest:,} bytes, but file systems allow 255"
    if len(path) > 4096:
        return f"it has {len(path):,} characters, but file systems allow 4,096"
    return "it has a NUL character" if "\0" in path else ""


def check_no_link(path: Path, root: Path) -> None:
    """
    Raise OSError if a path, or a folder between it and ``root``, is a link; the root itself may be one.

    Args:
        path: The path to read or write, below the root.
        root: A folder that this program alone writes in.
    """
    for place in (path, *path.parents):
        if place == root:
            return
        if place.is_symlink():
            message = f"{place} is a link, but links below {root} are not followed; remove it"
            raise OSError(errno.ELOOP, message, str(path))


def parse_toml(content: bytes) -> dict[str, Any]:
    """
    Return the table of a TOML file's content.

    Raises:
        ValueError: It is no UTF-8, or no TOML, or nested more than 64 levels deep.

    >>> parse_toml(b"a = 1")
    {'a': 1}
    """
    try:
        table: dict[str, Any] = tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} levels deep") from None
    _check_depth(table)
    return table


def parse_json(content: bytes | str) -> Any:
    """
    Return the value of a JSON file's content.

    Raises:
        ValueError: It is no UTF-8, or no JSON, or nested more than 64 levels deep.

    >>> parse_json(b"[" * 10**5)
    Traceback (most recent call last):
    ValueError: nested more than 64 levels deep
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} levels deep") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [part for each in level for part in _parts(each)]:
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} levels deep")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for each in value.values() if isinstance(each, dict | list)]
    return [each for each in value if isinstance(each, dict | list)] if isinstance(value, list) else []
