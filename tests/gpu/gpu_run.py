"""Test helpers: a scheduled program run five ways, as the interpreter reads it, by the executor of the GPU's model,
with its threads as loops, as CUDA text through a shim and g++, and as OpenCL text where a platform is installed."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from warpbeam import target
from warpbeam.codegen import cuda, opencl
from warpbeam.tir import expr as E
from warpbeam.tir import interp, interp_gpu
from warpbeam.tir.interp_gpu import integer
from warpbeam.tir.stmt import Evaluate, For, IfThenElse, PrimFunc, SeqStmt
from warpbeam.tir.transform.gpu import lower_device
from warpbeam.tir.transform.gpu.serialize_threads import serialize_threads

CUDA = target.get("cuda")
OPENCL = target.get("opencl")
_HERE = Path(__file__).parent


def arrays(func: PrimFunc, sizes: dict[str, int] | None = None, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Small whole numbers, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    found = []
    for b in func.buffers:
        shape = [s if isinstance(s, int) else (sizes or {})[s.name] for s in b.shape]
        found.append(rng.integers(-4, 5, shape).astype(b.dtype))
    return found


def check(
    pair: tuple[PrimFunc, PrimFunc], outputs: int = 1, sizes: dict[str, int] | None = None, rtol: float = 0.0
) -> list[PrimFunc]:
    """All ways give the plain program's result; gives the device functions."""
    func, plain = pair
    args = arrays(plain, sizes)
    want = [a.copy() for a in args]
    numbers = list((sizes or {}).values())
    interp.run(plain, *want, *numbers)
    host, devices = cuda.lower_gpu(func, CUDA)
    runs: list[Any] = [lambda *a: interp_gpu.run(host, devices, *a, *numbers)]
    loops = serialize_threads(lower_device(func, CUDA.replace(warp_shuffle=False)))
    runs.append(lambda *a: interp.run(loops, *a, *numbers))
    if gxx():
        runs.append(lambda *a: run_text(host, devices, cuda.print_kernels(devices, CUDA), a, numbers))
    if platform() is not None:
        h, d = opencl.lower_gpu(func, OPENCL)
        runs.append(lambda *a: run_opencl(h, d, opencl.print_kernels(d, OPENCL), a, numbers))
    for run in runs:
        got = [a.copy() for a in args]
        for g in got[len(got) - outputs :]:
            g[...] = 77
        run(*got)
        for g, w in list(zip(got, want, strict=True))[len(got) - outputs :]:
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=rtol, atol=rtol)
    return devices


# ------------------------------------------------------------------------------------------------------------ launches


def launches(stmt: Any, env: dict[Any, Any]) -> list[tuple[str, list[int], list[Any]]]:
    """(name, grid and block, arguments) of the launches of a host statement, in order."""
    if isinstance(stmt, SeqStmt):
        return [x for c in stmt.stmts for x in launches(c, env)]
    if isinstance(stmt, For):
        low = integer(stmt.min, env)
        steps = range(low, low + integer(stmt.extent, env))
        return [x for i in steps for x in launches(stmt.body, {**env, stmt.var: i})]
    if isinstance(stmt, IfThenElse):
        return launches(stmt.then, env) if integer(stmt.cond, env) else []
    assert isinstance(stmt, Evaluate) and isinstance(stmt.value, E.Call), stmt
    name, *rest = stmt.value.args
    assert isinstance(name, E.StringImm)
    args = [a.buffer if isinstance(a, E.BufferRef) else integer(a, env) for a in rest[7:]]
    return [(name.value, [integer(x, env) for x in rest[:6]], args)]


def bound(host: PrimFunc, args: Any, numbers: list[int]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Sizes, and arrays by buffer; workspace is made."""
    env: dict[Any, Any] = dict(zip((p for p in host.params if isinstance(p, E.Var)), numbers, strict=False))
    table: dict[Any, Any] = {}
    for b, a in zip(host.buffers, args, strict=False):
        table[b] = a
        env.update({d: n for d, n in zip(b.shape, a.shape, strict=True) if isinstance(d, E.Var)})
    for b in host.buffers[len(args) :]:
        table[b] = np.zeros([integer(d, env) for d in b.shape], b.dtype)
    return env, table


# ---------------------------------------------------------------------------------------------------------- CUDA text


@functools.cache
def gxx() -> str | None:
    return shutil.which("g++")


def wrapper(device: PrimFunc) -> str:
    """A C function that launches a kernel through the shim."""
    params, names = ["const int64_t* dims"], []
    for k, p in enumerate(device.params):
        if isinstance(p, E.Buffer):
            params.append(f"void* b{k}")
            names.append(f"(decltype(shim_arg<{k}>({device.name})))b{k}")
        else:
            params.append(f"int64_t b{k}")
            names.append(f"(decltype(shim_arg<{k}>({device.name})))b{k}")
    call = f"{device.name}({', '.join(names)})"
    return (
        f'extern "C" int launch_{device.name}({", ".join(params)}) {{ return shim_launch(dims, [=] {{ {call}; }}); }}'
    )


_ARG = """
template <int K, class... A> std::tuple_element_t<K, std::tuple<A...>> shim_arg(void (*)(A...));
"""


_FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused", "-mf16c",
          "-fPIC"]  # fmt: skip


@functools.cache
def _folder() -> str:
    """A folder with the shim, compiled ahead, since most of the time goes into its headers."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    header = Path(folder, "gpu_shim.h")
    shutil.copy(_HERE / "gpu_shim.h", header)
    for name in ("cuda_fp16.h", "cuda_bf16.h"):
        Path(folder, name).write_text("")
    subprocess.run([str(gxx()), *_FLAGS, "-x", "c++-header", str(header)], check=True)
    return folder


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    folder = _folder()
    name = hashlib.sha256(source.encode()).hexdigest()[:12]
    file, lib = Path(folder, f"{name}.cpp"), Path(folder, f"{name}.so")
    file.write_text(source)
    command = [str(gxx()), *_FLAGS, f"-I{folder}", "-shared", str(file), "-o", str(lib)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, f"{made.stderr[:3000]}\n{source}"
    return ctypes.CDLL(str(lib))


def run_text(host: PrimFunc, devices: list[PrimFunc], text: str, args: Any, numbers: list[int]) -> None:
    """Runs CUDA text on this machine."""
    source = f'#include "gpu_shim.h"\n{text}\n{_ARG}\n' + "\n".join(wrapper(d) for d in devices)
    lib = compiled(source)
    env, table = bound(host, args, numbers)
    for name, dims, params in launches(host.body, env):
        passed = [
            ctypes.c_void_p(table[p].ctypes.data) if isinstance(p, E.Buffer) else ctypes.c_int64(p) for p in params
        ]
        assert lib[f"launch_{name}"]((ctypes.c_int64 * 6)(*dims), *passed) == 0, "threads of a block part at a barrier"


# -------------------------------------------------------------------------------------------------------------- OpenCL


@functools.cache
def platform() -> Any:
    """(pyopencl, context, queue) of a platform that compiles a kernel, or None."""
    try:
        import pyopencl as cl

        context = cl.Context(cl.get_platforms()[0].get_devices()[:1])
        cl.Program(context, "__kernel void f(__global float* a) { a[get_global_id(0)] = 1.0f; }").build()
        return cl, context, cl.CommandQueue(context)
    except Exception:
        return None


def run_opencl(host: PrimFunc, devices: list[PrimFunc], text: str, args: Any, numbers: list[int]) -> None:
    """Runs OpenCL text on the first device."""
    cl, context, queue = platform()
    program = cl.Program(context, text).build(["-cl-opt-disable"])  # PoCL 3 breaks loops over work items with masks
    env, table = bound(host, args, numbers)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    memory = {b: cl.Buffer(context, flags, hostbuf=a) for b, a in table.items()}
    scalars = {d.name: [p.dtype for p in d.params if isinstance(p, E.Var)] for d in devices}
    for name, dims, params in launches(host.body, env):
        kernel = cl.Kernel(program, name)
        types = iter(scalars[name])
        for k, p in enumerate(params):
            kernel.set_arg(k, memory[p] if isinstance(p, E.Buffer) else np.dtype(next(types)).type(p))
        total = [g * b for g, b in zip(dims[:3], dims[3:], strict=True)]
        cl.enqueue_nd_range_kernel(queue, kernel, total, dims[3:])
    for b, a in table.items():
        cl.enqueue_copy(queue, a, memory[b])
    queue.finish()
