"""Joins windows to the convolution that they are over, where one kernel for both is expected to be no slower.

The window stands alone and is all that reads the convolution with its epilogue. `sketch.pooled` says whether one kernel
can do both, and the prior whether it shall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.relay.expr import Call, Constant
from warpbeam.sketch.select import with_windows

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.transform.fuse_ops import Fuser


def join_windows(fuser: Fuser, target: Target) -> None:
    """Joins all such windows of a function whose convolutions have their epilogues already."""
    judged: dict[Any, bool | None] = {}
    for node in fuser.graph.order:
        members = _made(fuser, node)
        if not members:
            continue
        assert isinstance(node, Call)
        key = fuser.alike([*members, node])
        if key not in judged:
            made = fuser.tensors([*members, node])
            judged[key] = None if made is None else with_windows(*made[:2], target, made[2])
        if judged[key]:
            fuser.union(fuser.groups[members[0]], fuser.groups[node])
        elif judged[key] is not None:
            fuser.reasons.update(dict.fromkeys(members, "one kernel with the windows that read it would be slower"))


def _made(fuser: Fuser, node: Any) -> list[Call]:
    """The calls of the group that a window is over; nothing where a node is no such window."""
    if node not in fuser.groups or len(node.args) != 1 or isinstance(node.args[0], Constant):
        return []
    made, own = node.args[0], fuser.groups[node].root()
    if fuser.info(node).kind != "anchor" or own.size != 1 or made not in fuser.groups:
        return []
    group = fuser.groups[made].root()
    users = {u for m in group.members for u in fuser.graph.users.get(m, []) if u not in group.members}
    return group.members if group.anchor and users == {node} else []
