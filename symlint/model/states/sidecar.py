"""Pairs by the file beside a model in which onnxruntime-genai keeps the names of caches.

Source: https://onnxruntime.ai/docs/genai/reference/config.html (``model.decoder.inputs`` and ``outputs``; ``%d`` is the
number of the layer).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

NAME = "genai_config.json"
_TEMPLATES = (
    ("past_key_names", "present_key_names"),
    ("past_value_names", "present_value_names"),
    ("past_names", "present_names"),
)
LARGEST = 1 << 20
"""Bytes of such a file; a larger one is something else."""


def templates(model: str) -> tuple[tuple[str, str], ...]:
    """The templates of inputs and of outputs that the file beside a model names; none where there is no such file."""
    file = Path(model).parent / NAME
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return ()
        ends: Any = json.loads(file.read_text(encoding="utf-8"))["model"]["decoder"]
        found = [(ends["inputs"].get(one), ends["outputs"].get(other)) for one, other in _TEMPLATES]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple((one, other) for one, other in found if isinstance(one, str) and isinstance(other, str))


def pairs(model: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Input and output of every layer that the templates name."""
    for one, other in templates(model):
        for layer in count():
            pair = one.replace("%d", str(layer)), other.replace("%d", str(layer))
            if pair[0] not in inputs or pair[1] not in outputs:
                break
            yield pair
            if "%d" not in one:
                break
