"""Schedules of tensor expressions: what is asked of each operation, and the walk that makes a loop program of it."""

from warpbeam.te.schedule.auto_inline import AutoInlineBroadcast, AutoInlineElemWise, AutoInlineInjective
from warpbeam.te.schedule.infer import InferBound, ScheduleOps
from warpbeam.te.schedule.lower import lower
from warpbeam.te.schedule.relayout import AXIS_SEPARATOR
from warpbeam.te.schedule.schedule import Schedule, SpecializedCondition, create_schedule
from warpbeam.te.schedule.stage import Stage

__all__ = [
    "AXIS_SEPARATOR", "AutoInlineBroadcast", "AutoInlineElemWise", "AutoInlineInjective", "InferBound", "Schedule",
    "ScheduleOps", "SpecializedCondition", "Stage", "create_schedule", "lower",
]  # fmt: skip
