"""`warpbeam inspect`: what a compiled file holds, without loading its code."""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("file", metavar="FILE", help="a compiled model, or a library that was exported")
    parser.add_argument("--relay", action="store_true", help="print the model's Relay text, and nothing else")
    parser.add_argument("--program", action="store_true", help="print the host side, and nothing else")
    options.add_trusted(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Reads the file, which checks all its hashes, and prints what is in it."""
    from warpbeam.cli.models import is_artefact, is_compiled
    from warpbeam.runtime.artifact import Artifact
    from warpbeam.runtime.compiled import fits_here
    from warpbeam.runtime.errors import ArtifactError

    if is_compiled(args.file) and not is_artefact(args.file) and not args.trusted:
        data = _library(args.file, args.relay or args.program)
        console.emit_json(data) if args.json else _print(data)
        return 0
    artifact = Artifact.load(args.file, trusted=args.trusted)
    if args.relay or args.program:
        text = _relay(artifact) if args.relay else _program(artifact)
        if text is None:
            raise ArtifactError(f"{args.file} holds no such text", hint="compile the model again")
        print(text.rstrip())
        return 0
    rows = [{"name": s.name, "kind": s.kind, "bytes": len(s.data), "sha256": hashlib.sha256(s.data).hexdigest()}
            for s in artifact.sections.values()]  # fmt: skip
    chosen = artifact.chosen(fits_here).manifest
    data = _data(artifact.manifest, chosen, rows, artifact.variants) | {"signature": _signature(args.file, artifact)}
    console.emit_json(data) if args.json else _print(data)
    return 0


def _relay(artifact: Any) -> str | None:
    data = artifact.data("relay")
    return None if data is None else bytes(data).decode("utf-8", "replace")


def _program(artifact: Any) -> str | None:
    from warpbeam.runtime.program_text import program_text

    program = artifact.program()
    return None if program is None else program_text(program)


def _library(path: str, text: bool) -> dict[str, Any]:
    """What an exported library says of itself."""
    from warpbeam.runtime.errors import ArtifactError
    from warpbeam.runtime.exported import describe

    found = describe(path)
    if found is None or text:
        what = "holds no such text" if text else "holds no model"
        raise ArtifactError(f"{path} {what}", hint="give the compiled file that it was exported from")
    manifest, facts = found
    rows = [{"name": k, "kind": k, "bytes": facts[k], "sha256": ""} for k in ("params", "constants") if facts[k]]
    return _data(manifest, manifest, rows, []) | {"signature": "none", "prefix": f"{facts['name']}_"}


def _data(m: Any, chosen: Any, sections: list[dict[str, Any]], variants: list[str]) -> dict[str, Any]:
    """What is printed; `chosen`: the manifest for this machine, if there is one."""
    from warpbeam.runtime.compiled import fits_here
    from warpbeam.runtime.cpu import missing_features

    missing, here = missing_features(m.cpu_features), fits_here(chosen)
    return {
        "name": m.name, "compiler": m.compiler_version, "abi": m.abi_version, "target": m.target,
        "variants": variants,
        "cpu_features": list(m.cpu_features), "runs_here": here, "missing_features": missing, "precision": m.precision,
        "inputs": [_tensor(s) for s in m.inputs], "outputs": [_tensor(s) for s in m.outputs],
        "params": [_tensor(s) for s in m.params], "kernels": len(m.kernels),
        "arena_bytes": m.arena_bytes if isinstance(m.arena_bytes, int) else None,
        "arena_bound": int(m.extra["arena_bound"]) if m.extra.get("arena_bound", "").isdigit() else None,
        "sections": sections,
    }  # fmt: skip


def _signature(path: str, artifact: Any) -> str:
    """Who signed the file, in words."""
    from warpbeam.runtime.signature import claimed, fingerprint

    if artifact.signer is not None:
        return f"by {fingerprint(artifact.signer)}, checked"
    key = claimed(path)
    return f"by {fingerprint(key)}, not checked: give --trusted" if key else "none"


def _tensor(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": console.shape(spec.shape)}


def _print(data: dict[str, Any]) -> None:
    for key in ("name", "prefix", "compiler", "target", "precision", "kernels", "signature"):
        if key in data:
            print(f"{key:<11}{data[key]}")
    for other in data["variants"]:
        print(f"{'also for':<11}{other}")
    size = data["arena_bytes"]
    least = data["arena_bound"]
    best = f", {console.size(least)} at the busiest step" if size is not None and least is not None else ""
    print(f"{'scratch':<11}{console.size(size) if size is not None else 'depends on the sizes of the inputs'}{best}")
    if data["cpu_features"]:
        print(f"{'needs':<11}{', '.join(data['cpu_features'])}")
    why = f"no: it lacks {', '.join(data['missing_features'])}" if data["missing_features"] else "no"
    print(f"{'runs here':<11}{'yes' if data['runs_here'] else why}")
    for group in ("inputs", "outputs", "params"):
        for t in data[group]:
            print(f"{group[:-1]:<11}{t['name']}: {t['dtype']} {t['shape']}")
    rows = [(s["name"], s["kind"], console.size(s["bytes"]), s["sha256"][:16]) for s in data["sections"]]
    console.table(rows, ("section", "kind", "size", "sha-256"), left=(0, 1, 3))
