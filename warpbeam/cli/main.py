"""The command `warpbeam`: finds the subcommand, runs it, and turns errors into readable text and exit codes.

Exit codes: 0 all is well; 1 an error, or a verification that failed; 2 wrong arguments; 130 Ctrl-C; 143 SIGTERM.
Nothing but `argparse` is imported before the subcommand is known, so that help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

#: subcommand -> what it does; the code is in the module of the same name
COMMANDS = {
    "compile": "compile a model to a file",
    "export": "write a model as a library or C source for other programs",
    "micro": "write a project that runs a model on a device without an operating system",
    "inspect": "show what is in a compiled file",
    "sign": "sign a compiled file, or make keys",
    "run": "run a model on arrays from an npz file, or on generated ones",
    "bench": "time a model",
    "profile": "time a model kernel by kernel",
    "verify": "compare a compiled model with the interpreter, and find what differs",
    "opt": "run graph passes and print the graph",
    "reduce": "make a failing model smaller while it still fails",
    "rpc-server": "let other machines run and measure compiled code here",
    "rpc-tracker": "lend the devices of a farm to one client at a time",
    "doctor": "check this installation",
    "demo": "build, compile, verify and time a small network",
    "ops": "list operators, or which of a model's are supported",
}
_EPILOG = """examples:
  warpbeam demo
  warpbeam compile model.onnx -o model.wb
  warpbeam export model.onnx -o model.so
  warpbeam run model.wb --inputs in.npz --output out.npz
  warpbeam bench model.onnx --input-shapes "x:[1,3,224,224]" --threads 2
  warpbeam verify model.onnx
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((w for w in words if w in COMMANDS), None)
    try:
        parser, module = build_parser(chosen)
    except ImportError as error:
        return _report(error, "--debug" in words)
    args = parser.parse_args(words)
    if module is None or args.command is None:
        parser.print_help()
        return 2
    previous = _on_terminate()
    plain, warnings.formatwarning = warnings.formatwarning, lambda message, *_: f"warning: {message}\n"
    try:
        with _settings(args):
            return int(module.run(args))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left
        return 0
    except Exception as error:
        return _report(error, args.debug)
    finally:
        warnings.formatwarning = plain
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def build_parser(chosen: str | None = None) -> tuple[argparse.ArgumentParser, Any]:
    """The parser with the options of one subcommand, and that subcommand's module."""
    parser = argparse.ArgumentParser(
        "warpbeam",
        description="A deep-learning compiler: a model goes in, a fast native module comes out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    module = None
    for name, summary in COMMANDS.items():
        note = "" if os.path.exists(_file(name)) else " (not installed)"
        about = summary[0].upper() + summary[1:] + "."
        sub = subparsers.add_parser(name, help=summary + note, description=about)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            module = importlib.import_module(f"warpbeam.cli.{name.replace('-', '_')}")
            module.configure(sub)
    return parser, module


def _file(command: str) -> str:
    """Where the code of a subcommand is, if it is installed."""
    return os.path.join(os.path.dirname(__file__), f"{command.replace('-', '_')}.py")


class _Version(argparse.Action):
    """Prints the version; the package is imported only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from warpbeam import __version__

        print(f"warpbeam {__version__}")
        parser.exit()


def _settings(args: argparse.Namespace) -> AbstractContextManager[Any]:
    """What options of compiling mean for everything that a command compiles; `args.cleanup` ends with the command."""
    accuracy, precision = getattr(args, "accuracy", None), getattr(args, "precision", None)
    stack = args.cleanup = ExitStack()
    memory, seconds = getattr(args, "max_memory", None), getattr(args, "max_compile_seconds", None)
    if memory is not None or seconds is not None:
        from warpbeam.ir.budget import limited

        stack.enter_context(limited(memory, seconds))
    if accuracy is not None or precision is not None:
        from warpbeam.driver.api import accurate, precise

        stack.enter_context(accurate(accuracy))
        stack.enter_context(precise(precision))
    return stack


def _report(error: Exception, debug: bool) -> int:
    """Prints an error: as it is where it was raised on purpose, with a hint where it is our mistake."""
    from warpbeam.runtime.errors import WarpbeamError, not_installed

    if isinstance(error, ModuleNotFoundError):
        error = not_installed(error)
    if debug:
        import traceback

        traceback.print_exception(error)
        return 1
    if isinstance(error, WarpbeamError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, OSError):
        print(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
    else:
        print(f"internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print(
            "  what to do: this is a defect of Warpbeam; run again with --debug and report the traceback",
            file=sys.stderr,
        )
    return 1


def _on_terminate() -> Any:
    """Makes SIGTERM unwind like Ctrl-C does, so that half-written files are removed; None outside the main thread."""

    def stop(number: int, frame: Any) -> None:
        sys.exit(143)

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
