"""Draws random networks and tries each for all laws.

    python tests/search/run.py [--count N] [--seed S] [--jobs J] [--laws LAW,..] [--shrink] [--minutes M]
    python tests/search/run.py --recipe 'RECIPE' [--keep FILE.onnx]

With `--laws few` the networks are tried as `test_search.py` does it: all laws on every tenth, the quick ones on the
others. Without a seed it is the day's date. What breaks a law is told with its recipe, from which it can be made again;
with `--shrink` it is made small first. At the end stands which operators of the table were met, and which were not.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), *map(str, HERE.parent.glob("[a-z]*/"))]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
warnings.simplefilter("ignore")

import hunt  # noqa: E402
import onnx  # noqa: E402
from cases import known  # noqa: E402
from laws import LAWS, Failure  # noqa: E402
from recipe import Recipe, read  # noqa: E402

from symlint.model.operators import operators  # noqa: E402


def main() -> int:
    """The exit code: 1 where a law is broken for a reason that is not known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--blocks", action="store_true", help="networks of blocks alone, without single calls")
    parser.add_argument("--only", type=int, help="one of them")
    parser.add_argument("--seed", type=int, default=int(datetime.now(timezone.utc).strftime("%Y%m%d")))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--laws", default=",".join(LAWS))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--recipe", type=read)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    wanted = None if given.laws == "few" else given.laws.split(",")
    if given.recipe:
        return again(given.recipe, wanted or list(LAWS), given.keep)
    print(f"seed {given.seed}", flush=True)
    end = time.monotonic() + 60 * given.minutes
    recipes = list(enumerate(hunt.drawn(given.seed, given.count)))
    if given.blocks:
        recipes = [(k, recipe) for k, recipe in recipes if k % 3]
    if given.only is not None:
        recipes = recipes[given.only : given.only + 1]
    met: set[str] = set()
    notes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    unknown = 0

    def one(numbered: tuple[int, Recipe]) -> hunt.Answer | None:
        k, recipe = numbered
        return hunt.tried(recipe, wanted or hunt.turn(k, recipe)) if time.monotonic() < end else None

    with ThreadPoolExecutor(given.jobs) as pool:
        for (k, recipe), answer in zip(recipes, pool.map(one, recipes), strict=True):
            if answer is None:
                break
            met |= answer.operators
            notes += answer.notes
            notes["networks"] += 1
            notes["CPU seconds"] += round(answer.seconds)
            for failure in answer.failures:
                unknown += tell(k, recipe, failure, kinds, small=given.shrink)
    for what, count in [*kinds.most_common(), *notes.most_common(60)]:
        print(f"{count:6d}  {what}")
    table = set(operators())
    left = sorted(table - met)
    more = " ".join(left[:20]) + (" and more" if left[20:] else "")
    print(f"{len(met & table)} of {len(table)} operators met; not: {more or 'none'}")
    return int(unknown > 0)


def tell(k: int, recipe: Recipe, failure: Failure, kinds: Counter[str], *, small: bool) -> bool:
    """Print a failure once per kind; whether its reason is unknown."""
    reason = known(failure)
    kind = f"known, {reason}" if reason else failure.kind
    kinds[kind] += 1
    if kinds[kind] == 1:
        print(f"{k}: {'KNOWN ' if reason else ''}{failure.law}: {failure.detail[:300]}", flush=True)
        if not reason:
            print(f"   {hunt.shrunk(recipe, failure) if small else recipe}", flush=True)
    elif not reason:
        print(f"{k}: again {kind[:100]}", flush=True)
    return not reason


def again(recipe: Recipe, wanted: list[str], keep: Path | None) -> int:
    """One recipe once more."""
    if keep:
        onnx.save(hunt.model(recipe), keep)
    answer = hunt.tried(recipe, wanted)
    for failure in answer.failures:
        print(f"{failure.law}: {failure.detail}  {known(failure) or ''}")
    print(sorted(answer.blocks), dict(answer.notes))
    return int(bool(answer.failures))


if __name__ == "__main__":
    sys.exit(main())
