"""The command line: one file a verb, each thin; `main` turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from medvlm.cli.common import state
from medvlm.errors import MedvlmError

VERBS = ("prepare", "data", "finetune", "eval", "predict", "inspect", "export", "report", "licenses")

INTERRUPTED = 130


def _version(value: bool) -> None:
    if value:
        from medvlm import __version__

        print(f"medvlm {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Return the app with every verb registered; no verb loads torch before it runs."""
    app = typer.Typer(
        name="medvlm",
        help="From open medical literature and your own images to a fine-tuned, measured, license-clear "
        "vision-language model.\n\nExit codes: 0 ok, 1 defect, 2 usage, 3 bad input or recipe, 4 access or network, "
        "5 missing extra, 6 license forbids, 7 disk or memory, 130 interrupted.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        """Hold the flags that stand before a verb."""

    for verb in VERBS:
        importlib.import_module(f"medvlm.cli.{verb}").register(app)
    return app


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with a documented code.

    Args:
        argv: arguments without the program's name; those of the process when None.
    """
    _prepare_libraries()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from medvlm.train.launch import begin_together

        begin_together()
    sys.exit(run(argv))


def _prepare_libraries() -> None:
    """Keep other libraries' remarks and bars out of our output, and their threads from spinning while they wait.

    Set only where the user has not: TRANSFORMERS_VERBOSITY=info and python -W still work.
    """
    import logging
    import warnings

    # bitsandbytes remarks on CPU kernels that we do not use (see medvlm.models.quantize).
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        # Two trainings side by side on two cores run four times faster than with threads that wait by spinning.
        "OMP_WAIT_POLICY": "PASSIVE",
    }.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr."""
    state.debug = False
    try:
        result = build_app()(args=argv, prog_name="medvlm", standalone_mode=False)
        if result == INTERRUPTED:
            # Typer has turned Ctrl-C into this code without a word.
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        return _fail(f"interrupted; {_going_on(sys.argv[1:] if argv is None else argv)}", INTERRUPTED)
    except MedvlmError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is wrong here.
        sys.stderr.close()
        return 0
    except MemoryError:
        return _fail("out of memory; set a smaller batch size or image size", 7)
    except OSError as error:
        return _fail(*_os_error(error))
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            return _usage(error, usage())
        return _fail(f"{type(error).__name__}: {error} (a defect in medvlm; --debug shows where)", 1)
    return result if isinstance(result, int) else 0


def _going_on(argv: list[str]) -> str:
    """Return how to go on after Ctrl-C, by the verb."""
    verb = next((word for word in argv if word in VERBS), "")
    if verb == "finetune":
        return "nothing was trained yet" if "--dry-run" in argv else "what is done is kept; --resume goes on from it"
    if verb in ("prepare", "eval") or (verb, True) in (("predict", "--out" in argv), ("data", "merge" in argv)):
        return "what is done is kept; the same command goes on from it"
    return "nothing was changed"


def _os_error(error: OSError) -> tuple[str, int]:
    import errno

    from medvlm.io import DISK_FULL

    where = f"{error.filename}: " if error.filename else ""
    if error.errno in DISK_FULL:
        return f"{where}no space left on the disk; free some or choose another folder", 7
    known = ("EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP")
    if error.errno in {getattr(errno, name) for name in known}:
        return f"{where}{error.strerror}", 3
    return f"{where}{error.strerror or error} (a defect in medvlm; --debug shows where)", 1


def _usage(error: Exception, message: str) -> int:
    context = getattr(error, "ctx", None)
    # Without arguments the help itself has been asked for.
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    path = context.command_path if context is not None else "medvlm"
    return _fail(f"{message} ('{path} --help' shows the usage)", getattr(error, "exit_code", 2))


def _fail(message: str, code: int) -> int:
    if state.debug:
        import traceback

        traceback.print_exc()
    # Names come from files of unknown making: what a terminal would obey in them is not printed.
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from medvlm.train.launch import leave_note

        # One of several processes: the one that started them says it, once.
        if leave_note(shown, code):
            return code
    print(f"medvlm: error: {shown}", file=sys.stderr, flush=True)
    return code
