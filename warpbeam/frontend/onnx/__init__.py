"""ONNX models as Relay modules.

`from_onnx(model)` gives (module, parameters), the classic face; `import_model(model)` gives the module with its
constants inside and the names of inputs and outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpbeam.frontend.onnx.importer import ImportedModel, from_onnx, import_model
    from warpbeam.frontend.onnx.refusals import NeedsContentError

__all__ = ["ImportedModel", "NeedsContentError", "from_onnx", "import_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from warpbeam.frontend.onnx import importer, refusals

        return getattr(refusals if name == "NeedsContentError" else importer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
