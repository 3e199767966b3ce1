"""The command line: a group whose commands are imported when they are called.

Exit codes stand in the help of the group; those of an audit are told apart in `symlint.audit.outcome.Run` alone.
"""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import platform
import sys
import warnings
from importlib import import_module

import click

from symlint import __version__
from symlint.cli.report.words import printable
from symlint.model.errors import SymlintError, exit_code, raised
from symlint.runtime import child_process

# name -> (module that holds it as `NAME_command`, one line of help): shown without importing the module.
COMMANDS = {
    "check": ("check_models", "Audit models: find the capacity that they do not use."),
    "inspect": ("symmetries", "Show the symmetries of a model's parameters."),
    "profile": ("symmetries", "Show what every space of a network has come to."),
    "fix": ("fix_model", "Write smaller networks that compute the same functions."),
    "teleport": ("symmetries", "Move the weights along the symmetries; the function stays."),
    "verify": ("symmetries", "Try every claimed symmetry against onnxruntime."),
    "equivariance": ("symmetries", "Show how invariant or equivariant a network is."),
    "symmetrise": ("symmetries", "Write the average of a network over a group of moves."),
    "diff": ("comparing", "Compare two files of one network: findings, weights, spaces."),
    "align": ("comparing", "Move a network along its symmetries, as close to another as they allow."),
    "trace": ("comparing", "Tell whether a network is derived from one of others."),
    "fingerprint": ("comparing", "Write a sketch of a network for symlint trace."),
    "rule": ("about", "List the rules, or print the manual page of one."),
    "config": ("about", "Show the settings in force and where each comes from."),
    "doctor": ("about", "Show versions and installed packages of rules."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"symlint.cli.commands.{COMMANDS[cmd_name][0]}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The named command, or a usage error that suggests the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from symlint.model.errors import suggestion

            ctx.fail(f"no command {printable(args[0])!r}{suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; whatever goes wrong ends in one line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SymlintError as problem:
            _say(str(problem))
            ctx.exit(exit_code(problem))
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            # The reader has gone (`| head`): Python would complain once more when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        except Exception as error:
            if ctx.params.get("debug"):
                logging.getLogger("symlint").exception("internal error")
            _say(
                f"internal error: {raised(error)}. Please report it to the project with the output of "
                "`symlint --debug ...` and `symlint doctor`"
            )
            ctx.exit(2)


def _say(line: str) -> None:
    click.echo(f"symlint: {printable(line)}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__, "-V", "--version", message=f"symlint %(version)s (Python {platform.python_version()})"
)
@click.option("--debug", is_flag=True, help="Show the traceback of an internal error.")
def cli(debug: bool) -> None:
    """A linter for trained ONNX models.

    Reads a network's weights, without running it and without data, and reports the capacity that its own symmetries
    have cost it: units that nothing reads, units that never change, units that repeat each other.

    \b
    Exit codes, of all commands:
      0    done, and nothing that fails the run
      1    findings (check, diff), something refuted (verify),
           something to repair (fix --dry-run)
      2    the call or the configuration is wrong, or an internal error
      3    there is no model
      4    a model, or a part of it, could not be read or tried
      5    no repair held (fix), or no proof (align)
      130  interrupted by Ctrl-C

    \b
    A shell completes commands, options and rules after
      eval "$(_SYMLINT_COMPLETE=bash_source symlint)"    # or zsh_source
    """  # noqa: D301 - click reads the control character
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode still gets its report
    # A run makes millions of small objects that live to its end: looking through them costs a quarter of its time.
    gc.set_threshold(10_000_000, 10, 10)
    # What libraries have to say is noise to a user, who gets one line; a developer sees it with --debug.
    logging.basicConfig(
        level=logging.WARNING if debug else logging.CRITICAL, stream=sys.stderr, format="%(name)s: %(message)s"
    )
    if not debug:
        warnings.simplefilter("ignore")
    if debug:
        logging.getLogger("symlint").setLevel(logging.DEBUG)


def main() -> None:
    """The process `symlint`: the command line, and an end without taking what it holds apart, object by object."""
    # This must be said before numpy is imported, which a command may do before the group that it is of is called.
    # One thread beats several on matrices as small as those here.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Nor are pages of two megabytes, which a kernel may have to look for, worth it where arrays live for a moment.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    child_process.wait_with_types()
    try:
        cli(prog_name="symlint")
    except SystemExit as end:
        atexit._run_exitfuncs()  # noqa: SLF001  (as the interpreter does at its end)
        if isinstance(end.code, int) and _flushed():
            os._exit(end.code)
        raise


def _flushed() -> bool:
    """Whether all output has arrived; where it has not Python tells why in its own way."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    main()
