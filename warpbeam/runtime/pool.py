"""The process's one thread pool. Its code is in the artefacts (`pool_ll`); this module finds, sizes and revives it."""

from __future__ import annotations

import ctypes
import os
import threading

from .abi import LOOP_FN, PARALLEL_FOR_FN
from .errors import RunError
from .loader import Library

#: Environment: number of threads; pauses a thread spins for before it sleeps.
THREADS_VARIABLE, SPIN_VARIABLE = "WARPBEAM_NUM_THREADS", "WARPBEAM_SPIN"
DEFAULT_SPIN = 100_000


def _from_environment(variable: str, default: int, least: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise RunError(f"{variable}={text!r} is not a number of at least {least}", "environment")
    return int(text)


def _default_threads() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.library: Library | None = None
        self.pool = 0
        self.parallel_for = 0
        self.threads = 0


_state = _State()


def _serial(context: int, function: int, closure: int | None, n: int) -> int:
    """For code that brings no pool: one call for all iterations."""
    return int(LOOP_FN(function)(context, closure, 0, n)) if n > 0 else 0


_serial_callback = PARALLEL_FOR_FN(_serial)
_SERIAL_ADDRESS = ctypes.cast(_serial_callback, ctypes.c_void_p).value or 0


def _libc_function(name: str) -> ctypes.c_void_p:
    try:
        return ctypes.cast(ctypes.CDLL(None)[name], ctypes.c_void_p)
    except (AttributeError, OSError, TypeError):
        return ctypes.c_void_p(None)


def attach(library: Library) -> tuple[int, int]:
    """Makes the pool from `library`'s code if there is none yet.

    Returns:
        The addresses for `ctx->parallel_for` and `ctx->pool`.
    """
    with _state.lock:
        if _state.library is None and "wb_pool_create" in library:
            _create(library)
        return (_state.parallel_for or _SERIAL_ADDRESS), _state.pool


def _create(library: Library) -> None:
    start = _libc_function("pthread_create")
    create = library.function("wb_pool_create")
    create.restype = ctypes.c_void_p
    count = ctypes.c_int32(get_num_threads() if start else 1)
    spin = ctypes.c_int32(_from_environment(SPIN_VARIABLE, DEFAULT_SPIN, 0))
    library.pin()
    _state.pool = int(create(count, start, spin) or 0)
    _state.parallel_for = library.address("wb_pool_parallel_for")
    _state.library = library


def get_num_threads() -> int:
    """Threads that a parallel loop may use, the caller's included.

    The environment variable WARPBEAM_NUM_THREADS if set, else the number of processors this process may use.
    """
    if not _state.threads:
        _state.threads = _from_environment(THREADS_VARIABLE, _default_threads(), 1)
    return _state.threads


def set_num_threads(count: int) -> None:
    """Sets the number of threads for all modules of the process; takes effect at the next parallel loop.

    Raises:
        RunError: if `count` is not positive.
    """
    if count < 1:
        raise RunError(f"a pool of {count} threads makes no sense", hint="use 1 for serial execution")
    with _state.lock:
        _state.threads = count
        if _state.library is not None:
            resize = _state.library.function("wb_pool_resize")
            _state.threads = resize(ctypes.c_void_p(_state.pool), ctypes.c_int32(count)) if _state.pool else count


def _after_fork() -> None:
    """In a forked child: the threads are gone, and the lock may have been held by one of them."""
    _state.lock = threading.Lock()
    if _state.library is not None and _state.pool:
        reset = _state.library.function("wb_pool_reset")
        spin = ctypes.c_int32(_from_environment(SPIN_VARIABLE, DEFAULT_SPIN, 0))
        reset(ctypes.c_void_p(_state.pool), ctypes.c_int32(_state.threads), _libc_function("pthread_create"), spin)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
