"""Reading and writing files. Everything is written to a temporary neighbour and renamed: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warpbeam.runtime.errors import RunError, WarpbeamError


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        WarpbeamError: if the folder does not exist or is not writable.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise WarpbeamError(f"cannot write {target.name}", str(target.parent), "there is no such folder")
    if target.is_dir():
        raise WarpbeamError(f"cannot write {target}", why="it is a folder", hint="give the name of a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise WarpbeamError(f"cannot write {target.name}", str(target.parent), str(error.strerror)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_with(path: str | os.PathLike[str], save: Callable[[Path], object]) -> None:
    """Writes a file through a function that saves to a path."""
    with atomic(path) as temporary:
        save(temporary)


def read_npz(path: str) -> dict[str, Any]:
    """Arrays of an npz file by name. Pickled objects are refused.

    Raises:
        RunError: if it is no npz file of plain arrays.
    """
    import zipfile

    import numpy as np

    try:
        data = np.load(path, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise RunError(f"{path} is a single array", hint="save it with np.savez(path, name=array)")
        with data:
            return {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise RunError(f"there is no file {path}") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        why = str(error) if zipfile.is_zipfile(path) else "it is no zip archive"
        raise RunError(f"{path} is not an npz file of arrays", why=why, hint="save it with np.savez") from error


def write_npz(path: str, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name; unlike `np.savez`, any name will do (`file` too)."""
    import zipfile

    import numpy as np

    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, _plain(array), allow_pickle=False)


def _plain(array: Any) -> Any:
    """An array as npz files hold it: strings as characters."""
    import numpy as np

    array = np.asarray(array)
    return array.astype(str) if array.dtype == object else array
