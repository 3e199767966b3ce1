"""The laws that every network is tried for. Each gives what is wrong, in lines; none where nothing is."""

from __future__ import annotations

import json
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import planting
import test_invariance as invariance
from builder import CHANNEL, NUMPY, SIZE
from calls import PREFIX, call
from click.testing import CliRunner
from grammar import build
from measure import TOLERANCE, Unmeasured, changing, opened, session
from onnxruntime import InferenceSession
from recipe import Recipe

import symlint.runtime.probe
import symlint.runtime.verify
from symlint.audit.engine import audit
from symlint.cli.main import cli
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.child import array_of
from symlint.runtime.groups import Place, Transformation, matching, permuted
from symlint.runtime.probe import difference as apart
from symlint.runtime.probe import feeds, jolted
from symlint.runtime.propagation import Proofs
from symlint.runtime.runner import Rollout, Run
from symlint.symmetry.actions.permutation import PartExchange
from symlint.symmetry.dimension import dimension
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport
from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Structure

WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "check": ((), ("--format", "json"), ("--format", "concise"), ("--format", "sarif"), ("-v",)),
    "inspect": (("--format", "json"), (), ("--format", "csv"), ("--format", "dot"), ("-v",)),
    "diff": ((), ("--format", "json")),
    "profile": ((), ("--format", "json")),
}
"""How a command is told to answer: each network has one of each, in turns."""
ORDINARY = {0, 1, 4}
"""Exit codes of an audit that came to its end."""
EVERY = [*invariance.KINDS, "translation"]
PARAMETERS = 1000
"""Weights beyond which directions are not counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A law that a network breaks."""

    law: str
    detail: str

    @property
    def kind(self) -> str:
        """What two failures of one cause share, as far as that can be told from their words."""
        return f"{self.law}: {re.sub('[0-9][0-9.e+-]*', 'N', self.detail)[:120]}"


@dataclass
class Case:
    """A network of a recipe, as a file, and what was noted of it."""

    recipe: Recipe
    folder: Path
    model: onnx.ModelProto = field(init=False)
    stood: list[str] = field(init=False)
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        builder, self.stood = build(self.recipe, call)
        self.model = builder.model()
        self.path = self.folder / "net.onnx"
        onnx.save(self.model, self.path)

    @cached_property
    def examined(self) -> tuple[Symmetry, Structure]:
        """What is known of the network, which several laws ask for."""
        return examine(load(str(self.path)))

    @cached_property
    def audited(self) -> list[Finding]:
        """Its findings above note."""
        return audited(self.path)

    @property
    def bfloat(self) -> bool:
        """Whether its weights have eight bits."""
        return self.recipe.dtype == "bfloat16"

    @property
    def lossy(self) -> bool:
        """Whether a part may leave out units by what the operator does, so that a finding can be right."""
        return any(name.startswith(PREFIX) for name in self.stood)


@contextmanager
def at_hand() -> Iterator[None]:
    """onnxruntime in this process instead of in a child: whoever tries a law in a copy of itself has one already."""

    def run_each(
        models: Sequence[Path],
        feeds: Sequence[dict[str, np.ndarray]],
        loop: Rollout | None = None,
        level: str = "none",
    ) -> list[Run]:
        assert loop is None, "no network of the grammar has states"
        found = []
        for path in models:
            try:
                # By its path, since weights may lie beside the file.
                made = opened(str(path), exact=level == "exact")
                outputs = [y for each in feeds for y in made.run(None, each)]
                found.append(Run(tuple(y for y in map(array_of, outputs) if y is not None)))
            except Exception as error:
                found.append(Run(failure=" ".join(str(error).split())[:300]))
        return found

    users = (symlint.runtime.verify, symlint.runtime.probe)
    before = [user.run_each for user in users]
    for user in users:
        user.run_each = run_each
    try:
        yield
    finally:
        for user, one in zip(users, before, strict=True):
            user.run_each = one


def command(*arguments: str) -> tuple[int, str, str]:
    """Exit code, what was printed, and the line of an internal error if there was one."""
    result = CliRunner().invoke(cli, list(arguments))
    said = " ".join((result.output + (result.stderr if result.stderr_bytes else "")).split())
    internal = re.search(r"internal error.*?(?=Please report|$)|stopped by .*?(?=Please report|$)", said)
    broken = internal.group(0)[:300] if internal else ""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        broken = repr(result.exception)
    if "lease report" in said and not broken:
        broken = said[:300]
    return result.exit_code, result.stdout, broken


def ordinary(case: Case) -> Iterator[str]:
    """Every command comes to an ordinary end, in some format; a diff is with the network itself or with a moved one."""
    path, turn = str(case.path), case.recipe.seed
    moved = str(case.folder / "moved.onnx")
    code, out, broken = command("teleport", path, "-o", moved, "--seed", "1")
    if broken or code:
        yield f"teleport exits {code}: {broken or out[:200]}"
    itself = turn % 4 == 0 or broken or code
    for name, words in WORDS.items():
        chosen = words[turn % len(words)]
        other = [] if name != "diff" else [path if itself else moved]
        code, out, broken = command(name, path, *other, *chosen)
        if broken or code not in ORDINARY or (other == [path] and code):
            which = " with a moved network" if other and not itself else ""
            yield f"{' '.join([name, *chosen])}{which} exits {code}: {broken or out[:200]}"
        elif "json" in chosen:
            json.loads(out)


def audited(path: Path) -> list[Finding]:
    """All findings above note."""
    report = audit(str(path), [r for r in Settings().chosen(rules()) if r.level > Level.NOTE], Settings())
    assert not report.incomplete, report.incomplete
    return [f for f in report.findings if f.level > Level.NOTE]


def silent(case: Case) -> Iterator[str]:
    """Random weights have no finding above note; where operators leave units out, a finding must be true."""
    found = case.audited
    if case.lossy:
        if found:
            yield from _repaired(case.path, case.folder / "lossy.onnx", again=False, must=False)
        return
    for finding in found:
        yield f"{finding.rule} {finding.space} {list(finding.units)[:6]} of {finding.tensors[:3]}: {finding.message}"


def sound(case: Case) -> Iterator[str]:
    """No generator is refuted by onnxruntime."""
    symmetry, structure = case.examined
    claimed = [g.id for g in symmetry.generators if g.exact]
    case.notes["generators"] += len(claimed)
    with at_hand():
        trials = symlint.runtime.verify.verify(structure, claimed)
    for trial in trials:
        if trial.outcome == "refuted":
            yield f"{trial.kind} {trial.id} moves the outputs by {trial.difference:.1e}: {trial.reason}"
        elif trial.outcome == "not runnable":
            case.notes[f"not runnable: {trial.reason[:100]}"] += 1


def true_directions(case: Case) -> Iterator[str]:
    """In float64, no direction of a generator changes an output, and no direction is counted twice."""
    habits = {*case.recipe.habits, "symbolic batch"} - {"constant nodes"}
    double = replace(case.recipe, dtype="float64", habits=tuple(sorted(habits)))
    builder, _ = build(double, call)
    model, path = builder.model(), case.folder / "double.onnx"
    onnx.save(model, path)
    symmetry, structure = examine(load(str(path)))
    size = sum(t.size for t in structure.program.model.tensors.values() if t.floating)
    if size > PARAMETERS:
        case.notes["too large to measure"] += 1
        return
    count = dimension(structure)
    if symmetry.dimension is not None and count is not None and symmetry.dimension < count:
        yield f"{count} directions, of which {symmetry.dimension} are counted"
    try:
        feeds = _feeds(model, 24)
        _, worst = changing(structure, model, feeds)
    except Exception as error:
        if not isinstance(error, Unmeasured) and "onnxruntime" not in type(error).__module__:
            raise
        case.notes[f"not measured: {str(error)[:60]}"] += 1
        return
    case.notes["measured"] += 1
    if worst > TOLERANCE:
        yield f"a direction changes the outputs by {worst:.1e} of what a random one does"


def _feeds(model: onnx.ModelProto, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    made = {}
    for value in model.graph.input:
        shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        made[value.name] = rng.normal(size=shape)
    return made


def _sites(path: Path) -> None:
    """Plant in floating weights alone: zeros of what is packed or has a zero point are other numbers."""
    there = planting.network(path)
    tensors, stored = there.program.model.tensors, there.program.weights
    there.__dict__["sites"] = tuple(
        site for site in there.sites if all(tensors[stored[name]].floating for name in site.roles.parts)
    )


def exactly(case: Case) -> Iterator[str]:
    """A planted flaw is found with its rule, space and units, and nothing else."""
    if case.lossy and case.audited:
        return
    _sites(case.path)
    rng = np.random.default_rng(case.recipe.seed)
    kinds = list(planting.FLAWS | planting.TWINS | planting.SAME | planting.LURES)
    for name in rng.permutation(kinds)[:4]:
        out = case.folder / "planted.onnx"
        planted = planting.plant(case.path, str(name), out)
        if planted is None:
            continue
        case.notes[f"planted {name}"] += 1
        kind = (planting.FLAWS | planting.TWINS | planting.SAME | planting.LURES)[str(name)]
        got, want = invariance.found(out), _expected(kind.rule, *planted)
        # In a narrow network the units that are left may bound a product beside them.
        got = [f for f in got if not f[0].startswith("SYM30")]
        # Entries of the input that only dead units read are read by nothing, which can be tried.
        got = [f for f in got if f in want or not (f[0] == "SYM011" and _unread(case, out, f[2]))]
        alike = _shifted(case, planted[0]) and got == [("SYM101", *f[1:]) for f in want]
        if got != want and not alike and not _foretold(case, out, got, want):
            moved = any(g.id.endswith(".translation") for g in case.examined[0].generators)
            where = f"{', beside a translation' if moved else ''}{', in bfloat16' if case.bfloat else ''}"
            yield f"{name}: wanted {want or planted[1]}, found {got}{where}"


def _foretold(case: Case, path: Path, got: invariance.Found, want: invariance.Found) -> bool:
    """Whether the flawed units are told of by a rule that comes first, which a repair proves."""
    first = [("SYM102", *f[1:3]) for f in want if f[0] in ("SYM201", "SYM203")]
    return (
        bool(first)
        and [f[:3] for f in got] == first
        and not any(_repaired(path, case.folder / "foretold.onnx", again=False, must=True))
    )


def _unread(case: Case, path: Path, channels: list[int]) -> bool:
    """Whether no output answers to some channels of the input."""
    model = onnx.load(path)
    feeds, axis = _feeds(model, SIZE), CHANNEL[case.recipe.entry]
    feeds = {n: x.astype(NUMPY[case.recipe.dtype]) for n, x in feeds.items()}
    (name,) = feeds
    moved = feeds[name].copy()
    moved[(*(slice(None),) * axis, channels)] += 1
    before, after = (session(model).run(None, {name: x}) for x in (feeds[name], moved))
    return all(np.allclose(x.astype(float), y.astype(float), rtol=1e-6) for x, y in zip(before, after, strict=True))


def _shifted(case: Case, site: planting.Site) -> bool:
    """Whether a translation moves what is added to units: where they are constant, it makes them zero in some gauge."""
    added = {n for n, _ in site.roles.adders} | {n for (n, _), part in site.roles.statistics.items() if part == "bias"}
    moved = {action.translation.weight for action in case.examined[1].shifts}
    return bool(added & moved)


def _expected(rule: str | None, site: planting.Site, groups: list[list[int]]) -> invariance.Found:
    from test_planted import expected

    return expected(rule, site, groups)


def in_every_gauge(case: Case) -> Iterator[str]:
    """What is told of a network with flaws does not change when its weights move along all generators."""
    planted, out = case.folder / "planted.onnx", case.folder / "gauge.onnx"
    flaws = invariance.EVERY | planting.ROUND
    _sites(case.path)
    if not invariance.every_flaw(case.path, planted, flaws):
        return
    before = invariance.findings(planted)
    for kinds in (invariance.KINDS, EVERY):
        structure = _moved(planted, out, kinds, case.recipe.seed)
        want = [invariance.relabelled(f, invariance.drawn(structure, case.recipe.seed, f)) for f in before]
        got = [invariance.facts(f) for f in invariance.findings(out)]
        if got != want:
            which = "translations and all others" if "translation" in kinds else "all kinds but translations"
            lost, new = [f[:4] for f in want if f not in got], [f[:4] for f in got if f not in want]
            yield f"after {which}: lost {lost}, new {new}"
            return


def _moved(path: Path, out: Path, kinds: Sequence[str], seed: int) -> Structure:
    """Write the network, moved by all of some kinds but exchanges of branches, after which spaces change names."""
    _, structure = examine(load(str(path)))
    chosen = [name for name in select(structure, None, kinds) if not isinstance(structure.action(name), PartExchange)]
    write(path, teleport(structure, chosen, seed), out)
    return structure


def repaired(case: Case) -> Iterator[str]:
    """A network with flaws is repaired with a proof, and a second repair finds nothing to do."""
    planted = case.folder / "planted.onnx"
    _sites(case.path)
    if invariance.every_flaw(case.path, planted):
        case.notes["repaired"] += 1
        yield from _repaired(planted, case.folder / "fixed.onnx", again=True, must=True)


def _repaired(path: Path, out: Path, *, again: bool, must: bool) -> Iterator[str]:
    code, said, broken = command("fix", str(path), "-o", str(out), "--format", "json")
    if broken or code not in (0, 5):
        yield f"fix exits {code}: {broken or said[:200]}"
        return
    told = json.loads(said)
    proof = told.get("proof") or {}
    if code == 5 and proof.get("outcome") == "not runnable" and difference(path, path) != 0:
        return  # no runtime has it, or its outputs are no numbers
    if code == 5:
        yield f"fix: no repair held: {json.dumps(proof)[:200]} {json.dumps(told)[:300]}"
        return
    gap = difference(path, out)
    if gap is not None and gap > 1e-4:
        yield f"fix changes the outputs by {gap:.1e}"
    if again:
        code, said, broken = command("fix", str(out), "-o", str(out.with_name("again.onnx")), "--format", "json")
        told = json.loads(said) if not broken and code in (0, 5) else {}
        if broken or code or told.get("repairs"):
            yield f"fix of a fixed network exits {code}: {broken or json.dumps(told.get('repairs'))[:300]}"


def difference(one: Path, other: Path) -> float | None:
    """How far two files lie apart on random inputs, relative to the largest output; None where they do not run."""
    models = [onnx.load(one), onnx.load(other)]
    rng, feeds = np.random.default_rng(3), {}
    for value in models[0].graph.input:
        shape = [d.dim_value or SIZE for d in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.normal(size=shape).astype(kind)
    try:
        before, after = (session(m).run(None, feeds) for m in models)
    except Exception:
        return None
    coarse = any(y.dtype.itemsize == 2 for y in before)
    gaps = [
        float(np.abs(x.astype(float) - y.astype(float)).max(initial=0) / max(np.abs(x).max(initial=0), 1e-30))
        for x, y in zip(before, after, strict=True)
    ]
    return max(gaps, default=0.0) / (300 if coarse else 1)


def followed(case: Case) -> Iterator[str]:
    """What is proven of inputs that are moved, onnxruntime does."""
    model = load(str(case.path))
    try:
        network = opened(str(case.path))
    except Exception:  # onnxruntime has no kernel for it
        return
    proofs = Proofs(model)
    ready = ((given, _ran(network, given)) for given in feeds(model, 0))
    given, before = next(((given, made) for given, made in ready if made is not None), ({}, None))
    rough = _ran(network, jolted(model, given, 0)) if before is not None else None
    for element, places in _moves(given) if before is not None else ():
        after = None
        for k, name in enumerate(model.graph.outputs):
            ranks = {n: x.ndim for n, x in given.items()}
            for answer in ((), *matching(element, name, before[k].shape, places, ranks)):
                if not proofs.holds(element, places, name, answer):
                    continue
                case.notes["proven"] += 1
                after = after or _ran(network, element.applied(given, places))
                expected = before[k]
                for place in answer:
                    expected = element.moved(expected, place)
                gap = 1.0 if after is None else apart(expected, after[k])
                bound = 1e-4 * (300 if before[k].dtype.itemsize == 2 else 1)
                if gap > max(bound, 30 * apart(before[k], rough[k]) if rough is not None else 0):
                    yield f"{element.name} of {places} is proven to give {answer or 'the same'}: {gap:.1e} off"


def _ran(network: InferenceSession, given: Mapping[str, np.ndarray]) -> list[np.ndarray] | None:
    try:
        return [np.asarray(y) for y in network.run(None, dict(given))]
    except Exception:
        return None


def _moves(given: Mapping[str, np.ndarray]) -> Iterator[tuple[Transformation, tuple[Place, ...]]]:
    """Each transformation of each axis alone, and together with all axes of its size."""
    rng = np.random.default_rng(0)
    for name, x in given.items():
        if x.dtype.kind == "f":
            yield Transformation("sign"), (Place(name),)
        for plane in combinations(range(x.ndim), 2):
            if x.shape[plane[0]] == x.shape[plane[1]] > 1:
                yield Transformation("turn", x.shape[plane[0]]), (Place(name, plane),)
        for axis, size in enumerate(x.shape):
            place = Place(name, (axis,))
            others = [Place(n, (a,)) for n, y in given.items() for a, m in enumerate(y.shape) if m == size]
            for kind in ("flip", "shift", "permutation") if size > 1 else ():
                element = Transformation(kind, size, 1, permuted(size, rng) if kind == "permutation" else ())
                yield from ((element, those) for those in dict.fromkeys(((place,), tuple(others))))


LAWS: dict[str, Callable[[Case], Iterator[str]]] = {
    "ordinary": ordinary,
    "sound": sound,
    "true directions": true_directions,
    "silent": silent,
    "exactly": exactly,
    "followed": followed,
    "every gauge": in_every_gauge,
    "repaired": repaired,
}


def few(recipe: Recipe) -> tuple[str, ...]:
    """The laws that are tried of a network in little time: single calls have weights by the thousand."""
    if any(part.name.startswith(PREFIX) for part in recipe.parts):
        return ("ordinary", "sound", "followed")
    return ("ordinary", "sound", "silent", "exactly", "followed")


def broken(recipe: Recipe, folder: Path, laws: Sequence[str] = tuple(LAWS)) -> tuple[list[Failure], Counter[str], Case]:
    """What a network breaks, with what was noted on the way. What raises breaks its law."""
    case = Case(recipe, folder)
    found = []
    for law in laws:
        try:
            found += [Failure(law, line) for line in LAWS[law](case)]
        except Exception as error:
            found.append(Failure(law, f"raises {told(error)}"))
    return found, case.notes, case


def told(error: BaseException) -> str:
    """An exception, and the last function of symlint that it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:150]} at {Path(last.filename).name}:{last.name}"
