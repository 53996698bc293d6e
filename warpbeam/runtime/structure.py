"""How values that are tuples stand in a model's tensors: `Structure`.

A compiled program takes and gives tensors, each by its name. A parameter of main that is a tuple has a tensor for each
leaf, and so has a result. A tree says which: the name of a tensor, a list of trees for a tuple, or {"tag": a number,
"fields": a list of trees} for a case of a data type, which only results have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ArtifactError, RunError
from .manifest import LAYOUT, STRUCTURE, Manifest
from .objects import Layout

Tree = str | list[Any] | dict[str, Any]
#: tuples in tuples that a file may describe
DEPTH = 256


@dataclass(frozen=True, slots=True)
class Structure:
    """The parameters of a model's main in order, by name, and its result."""

    params: tuple[tuple[str, Tree], ...]
    result: Tree

    @staticmethod
    def of(manifest: Manifest) -> Structure:
        """The structure that a manifest states; that of a function on tensors where it states none.

        Raises:
            ArtifactError: if it is damaged.
        """
        layout = Layout.from_json(manifest.extra[LAYOUT]) if LAYOUT in manifest.extra else None
        inputs = [s.name for s in (layout and layout.inputs) or manifest.inputs]
        outputs = [s.name for s in (layout and layout.outputs) or manifest.outputs]
        if STRUCTURE in manifest.extra:
            return Structure.from_json(manifest.extra[STRUCTURE])._only(inputs, outputs)
        return Structure(tuple((n, n) for n in inputs), outputs[0] if len(outputs) == 1 else list(outputs))

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps([self.params, self.result], separators=(",", ":"), ensure_ascii=True)

    @staticmethod
    def from_json(text: str) -> Structure:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: if it is something else.
        """
        try:
            params, result = json.loads(text)
            made = Structure(tuple((name, tree) for name, tree in params), result)
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtifactError("the structure of parameters is damaged", "manifest", str(error)[:200]) from None
        sound = all(isinstance(name, str) and _sound(tree, DEPTH, False) for name, tree in made.params)
        if not sound or not _sound(result, DEPTH, True):
            raise ArtifactError("the structure of parameters is damaged", "manifest")
        return made

    @property
    def names(self) -> list[str]:
        """The parameters' names in order."""
        return [name for name, _ in self.params]

    def _only(self, inputs: list[str], outputs: list[str]) -> Structure:
        """Without the tensors that the model keeps itself.

        Raises:
            ArtifactError: if it is of other tensors than these.
        """
        params = tuple((n, t) for n, t in ((n, _pruned(t, set(inputs))) for n, t in self.params) if t is not None)
        result = _pruned(self.result, set(outputs))
        made = Structure(params, [] if result is None else result)
        named = sorted(n for _, tree in params for n in _names(tree)), sorted(_names(made.result))
        if named != (sorted(inputs), sorted(outputs)):
            raise ArtifactError("the structure of parameters is of other tensors", "manifest")
        return made

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter, from positions and names.

        Raises:
            RunError: naming those that are missing, unknown or given twice.
        """
        if len(args) > len(self.params):
            raise RunError(f"{len(args)} arguments for {len(self.params)} parameters", hint=self._known())
        given = dict(zip(self.names, args))
        twice = [n for n in kwargs if n in given]
        given.update(kwargs)
        missing, unknown = [n for n in self.names if n not in given], [n for n in given if n not in self.names]
        if missing or unknown or twice:
            facts = (("missing", missing), ("unknown", unknown), ("given twice", twice))
            what = "; ".join(f"{what}: {', '.join(names)}" for what, names in facts if names)
            raise RunError(f"the arguments do not fit: {what}", hint=self._known())
        return given

    def _known(self) -> str:
        return f"its parameters: {', '.join(self.names) or 'none'}"

    def tensors(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by name from an argument for each parameter.

        Raises:
            RunError: if an argument is no tuple of the length that its parameter has.
        """
        return {leaf: value for name, tree in self.params for leaf, value in _leaves(tree, given[name], name)}

    def value(self, results: Mapping[str, Any], leaf: Callable[[Any], Any], group: Callable[..., Any]) -> Any:
        """The result from tensors by name: `leaf(tensor)` and `group(tag, values)` make values; tuples have tag 0."""

        def build(tree: Tree) -> Any:
            if isinstance(tree, str):
                return leaf(results[tree])
            tag, fields = (tree["tag"], tree["fields"]) if isinstance(tree, dict) else (0, tree)
            return group(tag, [build(t) for t in fields])

        return build(self.result)


def _leaves(tree: Tree, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, str):
        yield tree, value
        return
    if not isinstance(value, tuple | list) or len(value) != len(tree):
        have = f"one of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
        raise RunError(
            f"argument {where!r} is no tuple of {len(tree)}", f"it is {have}", hint="give a tuple, or a list"
        )
    for i, (part, item) in enumerate(zip(tree, value, strict=True)):
        yield from _leaves(part, item, f"{where}.{i}")


def _pruned(tree: Tree, known: set[str]) -> Tree | None:
    """A tree without unknown tensors; None where nothing is left."""
    if isinstance(tree, str):
        return tree if tree in known else None
    if isinstance(tree, dict):
        return tree
    left = [t for t in (_pruned(t, known) for t in tree) if t is not None]
    return left if left or not tree else None


def _names(tree: Tree) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    return [n for t in (tree["fields"] if isinstance(tree, dict) else tree) for n in _names(t)]


def _sound(tree: Any, depth: int, data: bool) -> bool:
    if isinstance(tree, dict):
        fits = tree.keys() == {"tag", "fields"} and type(tree["tag"]) is int and isinstance(tree["fields"], list)
        return data and fits and _sound(tree["fields"], depth, data)
    if isinstance(tree, list):
        return depth > 0 and all(_sound(t, depth - 1, data) for t in tree)
    return isinstance(tree, str)
