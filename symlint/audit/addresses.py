"""Addresses: paths that name files elsewhere, such as ``s3://bucket/model.onnx``."""

from __future__ import annotations


def elsewhere(path: str) -> bool:
    """Whether a path is an address rather than one of this machine's file system."""
    return "://" in path
