"""What an untrusted model may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a model file. A model beyond one of them is refused before work is done for it.

    file_bytes: size of the model file. tensor_bytes: any one tensor. folded_bytes: a constant computed while importing.
    nodes: nodes after inlining of functions. nesting: functions or subgraphs within each other. rank: dimensions of a
    tensor. name: characters of a name that is kept (longer ones are refused). iterations: of a loop that nothing ends
    before its number of iterations is reached.
    """

    file_bytes: int = 4 << 30
    tensor_bytes: int = 64 << 30
    folded_bytes: int = 64 << 20
    nodes: int = 1_000_000
    nesting: int = 64
    rank: int = 64
    name: int = 1 << 20
    iterations: int = 1 << 40


DEFAULT = Limits()
