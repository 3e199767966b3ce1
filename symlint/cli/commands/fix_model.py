"""`symlint fix`: smaller networks that compute the same function, each with a proof; and where they go."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from symlint.cli.commands.options import (
    color_option,
    config_option,
    form_option,
    inputs_option,
    read_array,
    rules_option,
    states_options,
    style_for,
    waiting,
)
from symlint.cli.report.words import printable
from symlint.evidence.options import TARGETS
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem, exit_code
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.audit.acceptance import Accepting
    from symlint.cli.report.repairs import Repaired
    from symlint.lint.configuration import Configurations
    from symlint.lint.settings import Settings
    from symlint.repair.plan import Fixed, Spared, Wish


@dataclass(frozen=True, slots=True)
class Destination:
    """What a call says of where its results go."""

    output: str | None
    folder: str | None
    in_place: bool
    dry_run: bool

    def of(self, models: Sequence[str], paths: Sequence[str]) -> Mapping[str, Path | None]:
        """Each model's file to write, None for none.

        Args:
            models: files.
            paths: the files, and the folders below which they were found; what lies below one keeps its place there.

        Raises UsageProblem where that cannot be followed.
        """
        self._alone(models)
        if self.dry_run:
            return dict.fromkeys(models)
        if self.folder is None:
            return {model: _one(model, self.output, in_place=self.in_place) for model in models}
        found: dict[str, Path | None] = {}
        for model in models:
            target = Path(self.folder, _place(model, paths))
            if (other := next((m for m, t in found.items() if t == target), None)) is not None:
                raise UsageProblem(f"{other} and {model} would both be written to {target}: fix them one by one")
            if target.resolve() == Path(model).resolve():
                raise UsageProblem(f"{target} is the model itself: name another folder, or ask for --in-place")
            found[model] = target
        return found

    def _alone(self, models: Sequence[str]) -> None:
        asked = {"-o OUT": self.output, "--out-dir DIR": self.folder, "--in-place": self.in_place or None}
        ways = [name for name, value in asked.items() if value is not None]
        if len(ways) > 1:
            raise UsageProblem(f"choose one of {' and '.join(ways)}")
        if not ways and not self.dry_run:
            raise UsageProblem(
                "name where to write the result with -o OUT (or --out-dir DIR), or ask for --in-place or --dry-run"
            )
        if self.output is not None and len(models) > 1:
            raise UsageProblem(f"-o takes the result of one model, and there are {len(models)}: use --out-dir DIR")
        if self.folder is not None and Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise UsageProblem(f"{self.folder} is no folder")


def _place(model: str, paths: Sequence[str]) -> Path:
    """The path of a model below the folder that it was found in, or its name."""
    roots = [Path(path) for path in paths if Path(path).is_dir()]
    return next((Path(model).relative_to(r) for r in roots if Path(model).is_relative_to(r)), Path(Path(model).name))


def _one(model: str, output: str | None, *, in_place: bool) -> Path:
    target = Path(output or model)
    if not in_place and target.resolve() == Path(model).resolve():
        raise UsageProblem(f"{target} is the model itself: name another file, or ask for --in-place")
    if target.exists() and not target.is_file():
        raise UsageProblem(f"{target} is no regular file: name another one for the result")
    if not target.absolute().parent.is_dir():
        raise UsageProblem(f"{target}: its folder does not exist")
    return target


def write_config(text: str, target: Path, *, replaces: bool) -> Path:
    """Put what a runtime is to know of a result beside it, and say where.

    Args:
        text: of the file.
        target: the result.
        replaces: whether it may take the place of one that is there; else it is called after the result.
    """
    from symlint.model.states import SIDECAR

    file = target.parent / SIDECAR
    if file.exists() and not replaces:
        file = target.parent / f"{target.stem}.{SIDECAR}"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{file}: cannot be written: {error.strerror or error}") from error
    return file


def write(source: Path, model: Path, target: Path, *, keep: bool) -> None:
    """Put the result where it is wanted, in one step, with what is stored beside it; kept is what stood there."""
    from symlint.repair.storage import deliver, outside

    if target.resolve() in {(model.parent / name).resolve() for name in outside(model)}:
        raise UsageProblem(f"{target} holds weights of the model itself: name another file")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        if keep and source != model:
            names = (f"{model}.bak{k or ''}" for k in count())
            shutil.copy2(model, next(name for name in names if not Path(name).exists()))
        deliver(source, target, model)
    except OSError as error:
        raise UsageProblem(f"{target}: cannot be written: {error.strerror or error}") from error


AUTO = 0
ROUND = (8, 16)
"""The multiples of widths of which is told what they would cost."""
WORST = (5, 4, 1, 3)
"""Exit codes of single models, the one first that decides."""


class Alignment(click.ParamType[int]):
    """A number of at least one, ``none`` for one, or ``auto``."""

    name = "align"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; `AUTO` for ``auto``."""
        if isinstance(value, int) or value in ("none", "auto"):
            return value if isinstance(value, int) else {"none": 1, "auto": AUTO}[value]
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= 1 << 20):
            self.fail(f"{value!r} is not a number of units such as 8, none or auto", param, ctx)
        return int(value)


@click.command("fix")
@click.argument("models", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write the repaired model.")
@click.option("--out-dir", type=click.Path(), help="The same for several: they keep their names.", metavar="DIR")
@click.option("--in-place", is_flag=True, help="Replace the model itself; what it was stays beside it as .bak.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing.")
@rules_option("--select", "Repair what these rules find.")
@rules_option("--ignore", "Leave alone what these rules find.")
@click.option(
    "--safety",
    type=click.Choice(["exact", "bounded", "all"]),
    default="exact",
    show_default=True,
    help="Evidence to act on.",
)
@click.option(
    "--align",
    type=Alignment(),
    default="none",
    show_default=True,
    metavar="N|none|auto",
    help="Keep widths at multiples of N; none takes all away that can go; auto measures, and writes the fastest.",
)
@click.option("--absorb", is_flag=True, help="Also drop the biases that others can take over.")
@click.option("--balance", is_flag=True, help="Also put the weights where int8 rounds them least.")
@click.option("--canonical", is_flag=True, help="Also put units and weights where equal networks are equal files.")
@click.option("--target", type=click.Choice(TARGETS), help="What the model is meant for: balances scales bad for it.")
@inputs_option("Prove on this as well.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the inputs of the proof.")
@click.option("--baseline", type=click.Path(dir_okay=False), help="Leave alone what stands in this file.")
@form_option
@click.option("--shrink-states", "shrinks", is_flag=True, help="Make states narrower; callers have to know.")
@states_options("none")
@config_option
@color_option
@click.pass_context
def fix_command(ctx: click.Context, /, models: tuple[str, ...], form: str, color: str, **asked: Any) -> None:
    """Write smaller networks that compute the same functions.

    Repairs what the rules find: dead units go, constant ones become biases, equal ones are merged, products of low
    rank get as narrow as their rank; what is stored unread or twice goes. What the configuration or --baseline accepts
    is left alone. MODELS are files, or folders that are
    searched for *.onnx. Each result is compared with its original in onnxruntime on random inputs of several sizes; a
    repair that does not hold is left out and told, and so is what stays of that `symlint check` counts. Exits with 0
    when the results were written (copies, where there is nothing to repair), with 1 when --dry-run has found something
    to repair, with 2 when the call is wrong, with 3 when there is no model, with 4 when one cannot be read or no weight
    of it be reached, with 5 when no repair held.
    """
    from symlint.audit.acceptance import accepting, read
    from symlint.audit.engine import absence, find
    from symlint.cli.report.repairs import as_json, as_text, together
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules

    if asked["shrinks"] and asked["loops"].find is False:
        raise UsageProblem("--shrink-states is for states, and --states none knows none")
    if asked["canonical"] and (asked["balance"] or asked["target"]):
        raise UsageProblem("--canonical chooses the scales itself: leave out --balance and --target")
    where = Destination(asked["output"], asked["out_dir"], asked["in_place"], asked["dry_run"])
    settings = Configurations(asked["config"], target=asked["target"], **asked["loops"].settings)
    files, missing = find(models, lambda file: settings.of(file).excludes(file))
    targets = where.of([*files, *missing], models)
    baseline = read(Path(asked["baseline"])) if asked["baseline"] is not None else None
    accepts = accepting(files, rules(), dt.date.today().isoformat(), baseline)
    several, style = len(targets) > 1 or where.folder is not None, style_for(color)
    results: list[Repaired | UnreadableModel] = []
    for model, target in targets.items():
        one = (
            MissingModel(model, absence(model)) if model in missing else _tried(model, target, settings, accepts, asked)
        )
        results.append(one)
        if isinstance(one, UnreadableModel):
            click.echo(f"symlint: {printable(str(one))}", err=True)
        elif form == "full":
            click.echo(as_text(one, style) + ("\n" if several else ""), nl=False, color=style.color)
    codes = [_code(one, dry_run=where.dry_run) for one in results]
    code = next((worst for worst in WORST if worst in codes), 0)
    if form == "json":
        click.echo(as_json(results, code if several else None), nl=False)
    elif several:
        click.echo(together(results, style), nl=False, color=style.color)
    ctx.exit(code)


def _tried(
    model: str, target: Path | None, settings: Configurations, accepts: Accepting, asked: Mapping[str, Any]
) -> Repaired | UnreadableModel:
    """One model repaired, or why it could not be read."""
    try:
        return _repaired(model, target, settings, accepts, asked)
    except UnreadableModel as problem:
        return problem


def _repaired(
    model: str, target: Path | None, settings: Configurations, accepts: Accepting, asked: Mapping[str, Any]
) -> Repaired:
    """One model repaired, and written where it is wanted. Raises UnreadableModel."""
    from symlint.audit.remainder import remainder, sparing
    from symlint.cli.report.repairs import Repaired
    from symlint.lint.rule import rules
    from symlint.repair.fixing import fix

    acting = _acting(model, asked)
    accepted = sparing(model, acting, rules(), accepts if acting.accept or accepts.baseline else None)
    wish = _wish(acting, asked, accepted.repairs)
    with TemporaryDirectory(prefix="symlint-") as folder:
        with waiting(f"{model}: repairing it and proving that its outputs stay"):
            fixed = fix(model, Path(folder), wish)
            rest = remainder(fixed, wish, rules(), settings.of(model), accepts, accepted.places)
        written = target is not None and not fixed.failed
        if target is not None and written:
            write(fixed.path, Path(model), target, keep=asked["in_place"])
            told = _configured(fixed, target, replaces=asked["in_place"])
    return Repaired(fixed, rest, str(target) if written else None, told if written else "")


def _configured(fixed: Fixed, target: Path, *, replaces: bool) -> str:
    """Write the file that tells a runtime the sizes of narrower states, where there is one; what became of it."""
    from symlint.repair.plan import config

    try:
        text = config(fixed.model, fixed.shrunk, target.name)
        return f"{write_config(text, target, replaces=replaces)}: written" if text is not None else ""
    except ValueError as error:
        return str(error)


def _acting(model: str, asked: Mapping[str, Any]) -> Settings:
    """What a model's findings are chosen by that a fix acts on."""
    from symlint.lint.configuration import Configurations

    flags = {name: asked[name] for name in ("select", "ignore", "target")} | asked["loops"].settings
    return Configurations(asked["config"], **flags).of(model)


def _wish(settings: Settings, asked: Mapping[str, Any], spared: Sequence[Spared]) -> Wish:
    from symlint.lint.rule import rules
    from symlint.repair.plan import SAFETY, Wish, acted_on

    align, loops = asked["align"], asked["loops"]
    closes = asked["shrinks"] or loops.find or bool(loops.declared)
    return Wish(
        acted_on(settings, rules(), asked["safety"], drops=asked["absorb"] or bool(asked["select"])),
        align or 1,
        ROUND if align < 2 else (),
        fastest=align == AUTO,
        seed=asked["seed"],
        given={name: read_array(file) for name, file in asked["inputs"].items()},
        absorb=asked["absorb"],
        balance=asked["balance"],
        canonical=asked["canonical"],
        evidence=SAFETY[asked["safety"]],
        asked=settings.asked(rules()),
        spared=spared,
        closed=partial(settings.with_states, strict=bool(loops.declared)) if closes else None,
        shrinks=asked["shrinks"],
    )


def _code(one: Repaired | UnreadableModel, *, dry_run: bool) -> int:
    if isinstance(one, UnreadableModel):
        return exit_code(one)
    fixed = one.fixed
    return 5 if fixed.failed else 4 if fixed.unreached else 1 if dry_run and fixed.done else 0
