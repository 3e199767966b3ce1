"""Calls: the commands as functions. Each takes a path, bytes or a parsed model, and leaves it as it is.

What a command tells by its exit code is told by the value, or raised: `symlint.UsageProblem` for what cannot be
followed, `symlint.UnreadableModel` for a file that cannot be read (`check` reports it instead).

Sources: a model as a caller has it, and the file that the engine reads.
"""

from __future__ import annotations

import datetime as dt
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from os import PathLike, fspath, path
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from symlint.api.reports import Equivariance, Profile, Repairs, Report
from symlint.audit.acceptance import accepting, settled
from symlint.audit.engine import audit
from symlint.audit.outcome import Report as Audited
from symlint.audit.outcome import Run
from symlint.comparison.alignment.align import Alignment, aligned
from symlint.comparison.compare import Comparison, compare
from symlint.comparison.lineage.sketch import Lineage, Sketch, lineage, sketched, weights, write
from symlint.lint.configuration import Configurations
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import COMMAND, Settings
from symlint.model.errors import MissingModel
from symlint.model.graph import Array
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.repair.plan import Fixed, Left
from symlint.symmetry.inference import examine, measured
from symlint.symmetry.spaces import Symmetry

Source = str | PathLike[str] | bytes | onnx.ModelProto
"""A path, the bytes of a file, or a parsed model."""


@dataclass(slots=True)
class Stored:
    """The file of a source."""

    path: str
    name: str
    """What reports call it: the path, ``<bytes>`` or ``<ModelProto>``."""
    folder: TemporaryDirectory[str] | None = None
    """Where it lies when it was made for this call."""
    lasting: bool = field(default=False, init=False)

    def outlive(self, owner: object) -> None:
        """Keep the file as long as there is an object that reads from it."""
        if self.folder is not None:
            weakref.finalize(owner, self.folder.cleanup)
            self.lasting = True

    def close(self) -> None:
        """Remove a file that was made for this call, unless something outlives it."""
        if self.folder is not None and not self.lasting:
            self.folder.cleanup()


@contextmanager
def stored(*models: Source) -> Iterator[tuple[Stored, ...]]:
    """The files of some models, while this lasts.

    Raises `MissingModel` for a path at which there is nothing.
    """
    with ExitStack() as stack:
        found = [_stored(model, stack) for model in models]
        yield tuple(found)


def _stored(model: Source, stack: ExitStack) -> Stored:
    if not isinstance(model, (bytes, onnx.ModelProto)):
        name = fspath(model)
        if not path.lexists(name):
            raise MissingModel(name)
        return Stored(name, Path(name).as_posix())
    folder = TemporaryDirectory(prefix="symlint-")
    file = Path(folder.name) / "model.onnx"
    made = Stored(str(file), "<bytes>" if isinstance(model, bytes) else "<ModelProto>", folder)
    stack.callback(made.close)
    if isinstance(model, bytes):
        file.write_bytes(model)
    else:
        _write(model, file)
    return made


def _write(model: onnx.ModelProto, file: Path) -> None:
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        file.write_bytes(model.SerializeToString())
    except (EncodeError, ValueError):  # protobuf writes no more than 2 GB
        import onnx_ir as ir

        from symlint.repair.storage import save

        save(ir.serde.deserialize_model(model), file, least=1024)


Selectors = str | Iterable[str]
"""Codes, beginnings of codes and names of rules; in a string with commas between them."""
Config = str | PathLike[str] | Settings | None
"""A configuration file, or settings; None for the file nearest to the model."""


def check(model: Source, *, select: Selectors = (), ignore: Selectors = (), config: Config = None) -> Report:
    """Audit a model: find the capacity that it does not use.

    Args:
        model: a path, bytes or a parsed model.
        select: rules to run; by default all that are not heuristic.
        ignore: rules to leave out.
        config: what the rules are asked; by default as `symlint check` would be.

    A file that cannot be read gives a report that is `incomplete`, with a finding that says why.
    """
    with stored(model) as (file,):
        start = time.perf_counter()
        settings = _settings(file, config, select, ignore)
        chosen = settings.chosen(rules())
        report = _named(replace(audit(file.path, chosen, settings), settings=settings), file)
        run = Run((report,), chosen, (), settings.fail_on, time.perf_counter() - start)
        return Report(settled(run, None, dt.date.today().isoformat())[0])


def inspect(model: Source, *, config: Config = None) -> Symmetry:
    """The symmetries of a model's parameters: its spaces, their generators, and how far it was understood.

    Args:
        model: a path, bytes or a parsed model.
        config: as of `check`; of what it says, the states count.
    """
    with stored(model) as (file,):
        settings = _settings(file, config, (), ())
        symmetry, structure = examine(settings.with_states(load(file.path)))
        file.outlive(symmetry.model.weights)
        return measured(symmetry, structure)


def profile(*models: Source, config: Config = None) -> Profile:
    """What every space of a network has come to, in one file or from checkpoint to checkpoint.

    Args:
        models: paths, bytes or parsed models; several are checkpoints of one network in order of time.
        config: as of `check`.
    """
    from symlint.comparison.trajectory import Trajectory, trajectory

    with stored(*models) as files:
        settings = [_settings(file, config, (), ()) for file in files]
        found = trajectory([file.path for file in files], rules(), settings)
        pairs = zip(found.portraits, files, strict=True)
        return Profile(Trajectory(tuple(replace(one, report=_named(one.report, file)) for one, file in pairs)))


def fix(
    model: Source,
    *,
    select: Selectors = (),
    ignore: Selectors = (),
    config: Config = None,
    safety: str = "exact",
    inputs: Mapping[str, Array] | None = None,
    states: bool = False,
    shrink_states: bool = False,
    canonical: bool = False,
) -> tuple[onnx.ModelProto, Repairs]:
    """A smaller network that computes the same function, proven in onnxruntime, and what was done.

    Args:
        model: a path, bytes or a parsed model.
        select: rules whose findings are repaired; by default all that a fix can act on.
        ignore: rules whose findings are left alone.
        config: as of `check`.
        safety: the evidence to act on: ``exact``, ``bounded`` or ``all``.
        inputs: values of inputs, by name, on which the proof is made as well.
        states: whether loops of states are closed: then whole sequences from the start stay, and not single steps.
        shrink_states: whether states may get narrower as well, which their callers have to know.
        canonical: whether units and weights go where equal networks are equal files.

    What the configuration accepts is left alone. Where nothing is repaired the first is the model as it was read.
    """
    from symlint.audit.remainder import remainder, sparing
    from symlint.repair.fixing import fix as repaired
    from symlint.repair.plan import Wish

    with stored(model) as (file,), TemporaryDirectory(prefix="symlint-") as folder:
        settings = _settings(file, config, select, ignore)
        acting, evidence = _acting(settings, select, safety)
        accepts = accepting([file.path], rules(), dt.date.today().isoformat())
        left = sparing(file.path, settings, rules(), accepts if settings.accept else None)
        wish = Wish(
            acting,
            given=inputs or {},
            evidence=evidence,
            asked=settings.asked(rules()),
            spared=left.repairs,
            closed=settings.with_states if states or shrink_states else None,
            shrinks=shrink_states,
            canonical=canonical,
        )
        found = repaired(file.path, Path(folder), wish)
        rest = remainder(found, wish, rules(), _settings(file, config, (), ()), accepts, left.places)
        return onnx.load(str(file.path if found.failed else found.path)), _told(found, rest, file)


def _acting(settings: Settings, select: Selectors, safety: str) -> tuple[list[Rule], tuple[str, ...]]:
    """The rules that a fix acts on, and the evidence."""
    from symlint.model.errors import UsageProblem
    from symlint.repair.plan import SAFETY, acted_on

    if safety not in SAFETY:
        raise UsageProblem(f"safety is {safety!r}; it can be {', '.join(SAFETY)}")
    return acted_on(settings, rules(), safety, drops=bool(_words(select))), SAFETY[safety]


def _told(found: Fixed, rest: tuple[Left, ...], file: Stored) -> Repairs:
    """What a fix has done, less where it was written."""
    from symlint.cli.report import Style
    from symlint.cli.report.repairs import Repaired, as_text

    one = Repaired(replace(found, model=replace(found.model, path=file.name)), rest, None)
    text = as_text(one, Style()).rstrip("\n").rpartition("\n")[0]
    return Repairs(found.done, one.left, found.proof, found.before, found.after, found.failed, text, found.shrunk)


def diff(
    old: Source, new: Source, *, select: Selectors = (), ignore: Selectors = (), config: Config = None
) -> Comparison:
    """Two files of one network, and what became of findings, weights and spaces.

    Args:
        old, new: paths, bytes or parsed models.
        select: rules whose findings are compared.
        ignore: rules to leave out.
        config: as of `check`, of the new model.
    """
    with stored(old, new) as files:
        settings = _settings(files[1], config, select, ignore)
        found = compare(files[0].path, files[1].path, rules(), settings)
        return replace(found, old=_named(found.old, files[0]), new=_named(found.new, files[1]))


def equivariance(
    model: Source,
    *,
    only: Selectors = (),
    inputs: Mapping[str, Array] | None = None,
    seed: int = 0,
    states: bool = True,
    config: Config = None,
) -> Equivariance:
    """How invariant or equivariant a network is to transformations of its inputs, measured in onnxruntime.

    Args:
        model: a path, bytes or a parsed model.
        only: ``flip``, ``turn``, ``shift``, ``permutation``, ``sign``; by default all.
        inputs: values of inputs, by name, in the place of drawn ones.
        seed: of what is drawn.
        states: whether loops of states are closed, so that nothing is told of them.
        config: as of `check`; of what it says, the states count.

    Raises `UnreadableModel` also for a model that onnxruntime does not run.
    """
    from symlint.model.errors import UnreadableModel
    from symlint.runtime.equivariance import Wanted, measure
    from symlint.runtime.groups import known

    with stored(model) as (file,):
        settings, loaded = _settings(file, config, (), ()), load(file.path)
        closed = settings.with_states(loaded) if states else loaded
        table = measure(closed, Wanted(known(_words(only))), seed=seed, given=inputs)
        if table.failure:
            raise UnreadableModel(file.name, f"it does not run: {table.failure}")
        return Equivariance(replace(table, path=file.name))


def align(first: Source, second: Source) -> tuple[onnx.ModelProto, Alignment]:
    """The second network moved along its symmetries as close to the first as they allow, and what was found.

    Args:
        first, second: paths, bytes or parsed models.

    The first value computes what the second network does, proven in onnxruntime; it is that network itself where the
    proof fails or less than half of both is matched (`exit_code`). Raises `UsageProblem` without scipy.
    """
    with stored(first, second) as files, TemporaryDirectory(prefix="symlint-") as folder:
        out = Path(folder) / "aligned.onnx"
        found = aligned(load(files[0].path), load(files[1].path), out)
        named = replace(found, first=files[0].name, second=files[1].name, pair=None)
        return onnx.load(str(out if found.exit_code == 0 else files[1].path)), named


def trace(model: Source, against: Sequence[Source]) -> Lineage:
    """The networks from which another may be derived, the most likely first, each with a score.

    Args:
        model: a path, bytes or a parsed model.
        against: the same, sketches as `fingerprint` writes them, and folders of both.

    Raises `UsageProblem` without scipy.
    """
    with stored(model, *against) as (file, *others):
        found = lineage(file.path, [other.path for other in others])
        names = {other.path: other.name for other in (file, *others)}
        traces = tuple(replace(one, path=names.get(one.path, one.path)) for one in found.found)
        return Lineage(file.name, traces)


def fingerprint(model: Source, output: str | PathLike[str] | None = None) -> Sketch:
    """The sketch of a model, with which `trace` compares others; saved where a file (``.npz``) is named.

    Raises `UsageProblem` where the model is quantised, or a weight is NaN or infinite.
    """
    with stored(model) as (file,):
        sketch = replace(sketched(weights(load(file.path)), file.path), path=file.name)
    if output is not None:
        write(sketch, Path(output))
    return sketch


def _words(selectors: Selectors) -> tuple[str, ...]:
    words = selectors.split(",") if isinstance(selectors, str) else selectors
    return tuple(word.strip() for word in words if word.strip())


def _settings(file: Stored, config: Config, select: Selectors, ignore: Selectors) -> Settings:
    """The settings of a model; one that lies in no folder of its caller has those of the working directory."""
    flags = {"select": _words(select) or None, "ignore": _words(ignore) or None}
    if isinstance(config, Settings):
        return config.override(COMMAND, **flags)
    found = Configurations(None if config is None else fspath(config), **flags)
    return found.run if file.folder is not None else found.of(file.path)


def _named(report: Audited, file: Stored) -> Audited:
    """A report under the name that its caller knows, with its hash taken while the file is there."""
    if file.folder is None:
        return report
    digest = report.sha256
    return replace(report, path=file.name, hashed=lambda: digest)
