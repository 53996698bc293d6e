"""The schedule language: primitives as records, and the schedule that applies them."""

from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.tir.schedule.schedule import Schedule
from warpbeam.tir.schedule.step import Step

__all__ = ["Schedule", "Step", "apply_layout"]
