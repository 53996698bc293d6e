"""Lowering for GPUs: threads, barriers, memory scopes, kernels."""

from __future__ import annotations

from warpbeam.tir.transform.gpu.pipeline import lower_device, lower_gpu

__all__ = ["lower_device", "lower_gpu"]
