"""The page of ONNX operators says what the importer does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from warpbeam.frontend.onnx import coverage, import_model
from warpbeam.frontend.onnx.tensors import DTYPES
from warpbeam.ir.diagnostics import UnsupportedError

ROOT = Path(__file__).resolve().parents[2]
CODES = {name: code for code, name in DTYPES.items()} | {"string": 8, "complex64": 14, "complex128": 15}


def test_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("onnx_page", ROOT / "scripts" / "onnx_page.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    if f"definitions in onnx {onnx.__version__};" not in page:
        pytest.skip("the page was written with other definitions of ONNX")
    assert page == script.render(), "run scripts/onnx_page.py"


def one_node(row: coverage.Row, kind: str) -> Any:
    """A model of one node on one operand of a type; None where the operator needs more than that."""
    domain, _, name = row.operator.rpartition("::")
    schema = onnx.defs.get_schema(name, row.since, domain)
    if schema.min_input != 1 or schema.min_output != 1 or any(a.required for a in schema.attributes.values()):
        return None
    if kind not in CODES:
        return None
    more = {"dtype": TensorProto.FLOAT} if name.startswith("Random") else {}
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain=domain, **more)], "g",
        [helper.make_tensor_value_info("x", CODES[kind], [1, 4, 8, 8])], [helper.make_empty_tensor_value_info("y")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, row.since)], ir_version=10)


#: they need another rank, further attributes, or an operand whose contents are known
OTHER = {
    "BlackmanWindow", "ConstantOfShape", "DFT", "EyeLike", "HammingWindow", "HannWindow", "Multinomial", "Reshape",
    "Resize", "StringNormalizer",
}  # fmt: skip


def test_importer_does_what_the_rows_say() -> None:
    """Every operator of one operand and no required attribute, in every version, with every type."""
    seen = {"compiled": 0, "refused": 0}
    for row in coverage.rows():
        if row.operator.startswith(("com.microsoft", "ai.onnx.ml")) or row.operator in OTHER:
            continue
        for way, kinds in (("compiled", (*row.compiled, *row.host)), ("refused", row.refused)):
            for kind in kinds:
                model = one_node(row, kind)
                if model is None:
                    continue
                seen[way] += 1
                where = f"{row.operator} {row.since} of {kind}"
                try:
                    import_model(model)
                except UnsupportedError as error:
                    assert way == "refused", f"{where}: {error}"
                else:
                    assert way == "compiled", f"{where} is imported"
    assert seen["compiled"] > 1000 and seen["refused"] > 50


def test_summary_counts_newest_versions() -> None:
    rows = coverage.rows()
    counts = coverage.summary(rows)
    assert sum(counts.values()) == len({r.operator for r in rows})
    assert counts["compiled"] > 200 and counts["no"] < 6
    assert np.all([r.since >= 1 for r in rows]) and CODES["string"] == TensorProto.STRING
