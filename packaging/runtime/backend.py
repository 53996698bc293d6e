"""Builds the wheel of the runtime: some files of the package one folder up, none of them written twice.

A build backend as PEP 517 describes them, without requirements. The same tree gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: where the package's folder is: beside this file in a source distribution, else at the root of the tree
ROOT = HERE if (HERE / "warpbeam").is_dir() else HERE.parents[1]
_DATE = (1980, 1, 1, 0, 0, 0)


def project() -> dict[str, Any]:
    """The whole pyproject.toml."""
    return tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))


def files() -> list[Path]:
    """What ships, relative to the root, in order."""
    package = ROOT / "warpbeam"
    patterns = project()["tool"]["warpbeam-runtime"]["files"]
    found = {p for pattern in patterns for p in package.glob(pattern) if p.is_file() and p.suffix != ".pyc"}
    return sorted(p.relative_to(ROOT) for p in found)


def version() -> str:
    """The version of the package."""
    text = (ROOT / "warpbeam" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("warpbeam/__init__.py states no version")
    return found[1]


def metadata() -> str:
    """METADATA of the wheel, PKG-INFO of the source distribution."""
    data = project()["project"]
    lines = [
        "Metadata-Version: 2.1", f"Name: {data['name']}", f"Version: {version()}", f"Summary: {data['description']}",
        f"License: {data['license']['text']}", f"Requires-Python: {data['requires-python']}",
        *(f"Requires-Dist: {d}" for d in data["dependencies"]),
    ]  # fmt: skip
    for extra, needs in data["optional-dependencies"].items():
        lines += [f"Provides-Extra: {extra}", *(f'Requires-Dist: {d} ; extra == "{extra}"' for d in needs)]
    return "\n".join(lines) + "\n"


def _stem() -> str:
    return f"{project()['project']['name'].replace('-', '_')}-{version()}"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Writes the wheel; gives its name."""
    stem = _stem()
    scripts = project()["project"]["scripts"]
    entries = "[console_scripts]\n" + "".join(f"{name} = {place}\n" for name, place in scripts.items())
    about = {
        "METADATA": metadata(),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: warpbeam\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": entries,
    }
    members = {path.as_posix(): (ROOT / path).read_bytes() for path in files()}
    members |= {f"{stem}.dist-info/{name}": text.encode() for name, text in about.items()}
    record = f"{stem}.dist-info/RECORD"
    rows = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in members.items()]
    members[record] = ("".join(rows) + f"{record},,\n").encode()
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        for member, data in members.items():
            info = zipfile.ZipInfo(member, _DATE)
            info.external_attr = 0o100644 << 16
            wheel.writestr(info, data, zipfile.ZIP_DEFLATED)
    return name


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Writes the source distribution, in which the package's folder lies beside this file; gives its name."""
    stem = _stem()
    members = {name: (HERE / name).read_bytes() for name in ("pyproject.toml", "backend.py")}
    members |= {path.as_posix(): (ROOT / path).read_bytes() for path in files()}
    members["PKG-INFO"] = metadata().encode()
    name = f"{stem}.tar.gz"
    with tarfile.open(Path(sdist_directory) / name, "w:gz") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(f"{stem}/{member}")
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return name


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
