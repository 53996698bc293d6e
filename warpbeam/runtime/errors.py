"""The errors of Warpbeam: each says what was found, where, why it cannot work and what to do about it."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "ArgumentError", "ArtifactError", "FunctionError", "LinkError", "LoadError", "NotInstalledError", "RPCError",
    "RunError", "TVMError", "WarpbeamError", "imported", "not_installed",
]  # fmt: skip


class WarpbeamError(Exception):
    """Root of all errors raised on purpose.

    Wrong:
        te.create_schedule([])
    Right:
        te.create_schedule(B.op)

    Args:
        what: what was found, one sentence.
        where: the place (file, node, argument) it was found at; empty if `what` already says so.
        why: why it cannot work.
        hint: what the reader can do about it.
    """

    def __init__(self, what: str, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where, why, hint)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label}: {text}" for label, text in self._notes() if text]
        return "\n".join(lines)

    def _notes(self) -> list[tuple[str, str]]:
        return [("where", self.where), ("why", self.why), ("what to do", self.hint)]


class ArtifactError(WarpbeamError):
    """A compiled file is damaged, forged, or of a version or machine that this runtime cannot serve.

    Wrong:
        Path("model.wbm").write_bytes(b"half a model")
        tvm.load("model.wbm")
    Right:
        tvm.compile("relu.relay").save("model.wbm")
        tvm.load("model.wbm")
    """


class LinkError(WarpbeamError):
    """Object files cannot be linked into a shared library.

    Wrong:
        from warpbeam.runtime.linker import link_shared
        link_shared([b"text"], ["f"])
    Right:
        from warpbeam.codegen.llvm import compile_text
        link_shared([compile_text("define i32 @f() { ret i32 0 }", tvm.target.get("native"))], ["f"])
    """


class LoadError(WarpbeamError):
    """Machine code or one of its symbols cannot be loaded into this process.

    Wrong:
        f.export_library("f.so")
        tvm.runtime.load_module("f.sos")
    Right:
        tvm.runtime.load_module("f.so")
    """


class RunError(WarpbeamError):
    """A model was called with the wrong arrays, or reported a failure while running.

    Wrong:
        f(x, tvm.nd.array(x).numpy().astype("float64"))
    Right:
        f(x, np.zeros((4, 4), "float32"))
    """


class ArgumentError(RunError, ValueError):
    """A compiled function was called with arguments that do not fit what it was built for.

    Wrong:
        f(x, np.zeros((4, 5), "float32"))
    Right:
        f(x, np.zeros((4, 4), "float32"))
    """


class RPCError(RunError):
    """A session with another process or machine cannot be opened, or has ended: nobody answers, the secret is another
    one, a frame was damaged on its way, the server's process died.

    Wrong:
        tvm.rpc.connect("127.0.0.1", 9, secret="sixteen bytes and some")
    Right:
        with tvm.rpc.Server() as server, tvm.rpc.connect(server.host, server.port, secret=server.secret) as remote:
            remote.listdir()
    """


class FunctionError(RunError, ValueError):
    """A function is not registered under a name, or a name is registered twice.

    Wrong:
        tvm.get_global_func("docs.anwser")
    Right:
        tvm.register_func("docs.answer", lambda: 42, override=True)
        tvm.get_global_func("docs.answer")
    """


class NotInstalledError(WarpbeamError, ImportError):
    """A part of Warpbeam, or a package that it builds on, is not installed. The runtime alone has no compiler.

    Wrong:
        tvm.error.imported("a_package_that_is_not_here")
    Right:
        tvm.error.imported("numpy")
    """


def imported(name: str) -> Any:
    """A module by its name.

    Raises:
        NotInstalledError: if it, or what it imports, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise not_installed(error) from error


def not_installed(error: ModuleNotFoundError) -> ImportError:
    """What a module that was not found means to the user; the error itself where it is one of ours."""
    package = (error.name or "warpbeam").partition(".")[0]
    if package == "warpbeam":
        return error
    return NotInstalledError(f"the package {package} is not installed", why=str(error), hint=f"pip install {package}")


#: the classic name of the root
TVMError = WarpbeamError
