"""Storage of sketches: one npz archive of numbers and a text, in which nothing is pickled."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from symlint.comparison.lineage.sketch import Sketch, SpaceSketch
from symlint.model.errors import MissingModel, UnreadableModel

VERSION = "1"
SUFFIX = ".npz"


def write(sketch: Sketch, output: Path) -> None:
    """Save a sketch; its numbers in half precision."""
    document = {
        "schema_version": VERSION,
        "path": sketch.path,
        "sha256": sketch.sha256,
        "weights": sketch.weights,
        "spaces": [
            {"id": space.id, "name": space.name, "units": space.units, "signed": space.signed}
            for space in sketch.spaces
        ],
    }
    arrays = {"sketch": np.frombuffer(json.dumps(document).encode(), np.uint8)}
    for number, space in enumerate(sketch.spaces):
        arrays[f"upward {number}"] = space.upward.astype(np.float16)
        arrays[f"downward {number}"] = space.downward.astype(np.float16)
    with output.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: str) -> Sketch:
    """A sketch as it was saved. Raises UnreadableModel where a file is none."""
    if not Path(path).is_file():
        raise MissingModel(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            document = json.loads(arrays["sketch"].tobytes())
            if document["schema_version"] != VERSION:
                raise UnreadableModel(path, f"a sketch of version {document['schema_version']}, expected {VERSION}")
            spaces = [
                SpaceSketch(
                    told["id"],
                    told["name"],
                    told["signed"],
                    arrays[f"upward {number}"].astype(np.float32),
                    arrays[f"downward {number}"].astype(np.float32),
                )
                for number, told in enumerate(document["spaces"])
            ]
            return Sketch(document["path"], document["sha256"], document["weights"], tuple(spaces))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableModel(path, "no sketch as `symlint fingerprint` writes it") from error
