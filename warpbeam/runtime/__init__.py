"""What ships to a device: arrays, the artefact and its loader, the thread pool, Programs and the faces that run them.

Imports nothing else of the package. The usual way in is `load(path)`, which gives a `Module`.
"""

from .abi import HEADER_PATH
from .artifact import Artifact, KernelInfo, Manifest, Section, TensorSpec
from .errors import ArtifactError, LinkError, LoadError, RunError, WarpbeamError
from .graph_executor import GraphModule
from .linker import link_shared
from .loader import Library
from .measure import BenchmarkResult
from .module import Module, TensorInfo, load
from .ndarray import Device, NDArray, array, as_numpy, cpu, cuda, device, empty, from_dlpack, gpu
from .pool import get_num_threads, set_num_threads
from .pool_ll import pool_ir
from .profiler import KernelTime, Profile
from .program import Program

load_module = load

__all__ = [
    "HEADER_PATH", "Artifact", "ArtifactError", "BenchmarkResult", "Device", "GraphModule", "KernelInfo", "KernelTime",
    "Library", "LinkError", "LoadError", "Manifest", "Module", "NDArray", "Profile", "Program", "RunError", "Section",
    "TensorInfo", "TensorSpec", "WarpbeamError", "array", "as_numpy", "cpu", "cuda", "device", "empty", "from_dlpack",
    "get_num_threads", "gpu", "link_shared", "load", "load_module", "pool_ir", "set_num_threads",
]  # fmt: skip
