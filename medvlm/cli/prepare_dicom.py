"""`medvlm prepare dicom`: which of one's own DICOM files are read, what text they get, and what may leave a header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli.common import DebugOption, QuietOption, say
from medvlm.cli.prepare_options import CHOOSE, DATA_SET, READ
from medvlm.cli.prepare_run import Job, build, source_named
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.sources.dicom.options import Options

PRIVACY = "What may leave the files"


def dicom(
    input: given.Input = None,
    reports: Annotated[
        str,
        typer.Option(
            metavar="none|sr|PATH",
            help="Texts: structured reports beside the pictures (sr), or a table or folder of reports by "
            "StudyInstanceUID or AccessionNumber.",
            rich_help_panel=READ,
        ),
    ] = "none",
    target_from: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="Without reports: ask for the modality, body-part or view, answered by the header.",
            show_default=False,
            rich_help_panel=CHOOSE,
        ),
    ] = None,
    sections: given.Sections = "both",
    views: Annotated[
        str | None,
        typer.Option(
            help="study (one sample with its images; the rule with reports) or each (one sample an image).",
            show_default=False,
            rich_help_panel=CHOOSE,
        ),
    ] = None,
    max_images: Annotated[
        int,
        typer.Option(min=1, help="At most so many images of a study, spread over it.", rich_help_panel=CHOOSE),
    ] = 4,
    frames: Annotated[
        str, typer.Option(help="Of files with several: first, middle, all or every:N.", rich_help_panel=CHOOSE)
    ] = "middle",
    window: Annotated[
        str,
        typer.Option(
            help="tag (the file's own), percentile, CENTER/WIDTH, or for CT: brain, lung, bone, abdomen ...",
            rich_help_panel=CHOOSE,
        ),
    ] = "tag",
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Secret that stand-ins are made with; made if absent. Usually dicom.key in your settings.",
            show_default=False,
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    dates: Annotated[
        str,
        typer.Option(help="drop, or shift: the year of the study, moved by patient.", rich_help_panel=PRIVACY),
    ] = "drop",
    phi: given.Phi = "count",
    allow_burned_in: Annotated[
        bool,
        typer.Option(
            "--allow-burned-in",
            help="Take pictures that have, or may well have, text in them.",
            rich_help_panel=PRIVACY,
        ),
    ] = False,
    allow_secondary: Annotated[
        bool,
        typer.Option(
            "--allow-secondary",
            help="Take secondary captures: screens, scans, images made of others.",
            rich_help_panel=PRIVACY,
        ),
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write which file is which stand-in (private: outside --out).",
            show_default=False,
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    out: given.Out = Path("data/dicom"),
    data_license: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Whose the data are: LicenseRef-own-data for your own that nobody else may have, or an SPDX id.",
            show_default=False,
            rich_help_panel=DATA_SET,
        ),
    ] = None,
    license: given.License = "commercial",
    split_ratio: given.Ratio = given.RATIO,
    seed: given.Seed = 0,
    drop_duplicates: given.DropDuplicates = False,
    workers: given.Workers = 0,
    engine: given.Engine = "local",
    ray_address: given.RayAddress = None,
    shard: given.Shard = None,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Your own DICOM files: folders of any depth, a DICOMDIR, or single files.

    Patients and studies become keyed stand-ins; of the headers only a whitelist leaves (data_cards/dicom.md). Pixels
    are not cleaned, and this is no certified de-identification (DICOM PS3.15): look at the result before others do.

    Example: medvlm prepare dicom --input export/ --reports reports.csv --license any
    """
    from medvlm.data.sources.dicom.options import parse

    if not input:
        raise UsageError("prepare dicom needs --input PATH: a folder, a DICOMDIR or a DICOM file")
    options = parse(
        window=window,
        frames=frames,
        reports=reports,
        target_from=target_from,
        sections=sections,
        views=views,
        max_images=max_images,
        dates=dates,
        allow_burned_in=allow_burned_in,
        allow_secondary=allow_secondary,
        data_license=data_license,
    )
    _check_rights(license, data_license)
    key = key or Path(typer.get_app_dir("medvlm")) / "dicom.key"
    table = Path(reports) if options.reports == "table" else None
    _check_places(out, input, names, [path for path in (key, table) if path is not None])
    job = Job(out, license, split_ratio, seed, drop_duplicates, workers, engine, ray_address, shard, overwrite, quiet)
    settings = {"inputs": list(input), "options": options, "names": names}
    if table is not None:
        settings["reports"] = table
    _build(job, settings, options, key, phi)


def _build(job: Job, settings: dict[str, Any], options: Options, key: Path, phi: str) -> None:
    """Load the key, build the data set, and say where the key lies."""
    from medvlm.data.phi import MODES, Scanner
    from medvlm.data.pseudonyms import Key

    # What a header answers is from lists of the standard, with nothing to scan.
    phi = "off" if options.target_from and phi in MODES else phi
    scanner = Scanner(phi)
    secret = Key.load(key, job.out)
    source = source_named("dicom", key=secret, scanner=scanner, **settings)
    asked = {**options.as_json(), "phi": phi, "key": secret.fingerprint}
    outcome = build(source, job, ["dicom", *_words(options, phi)], asked)
    if outcome.left is None:
        say(
            f"key: {key}; keep it from those who get the data, and use it again for more studies",
            job.quiet,
        )


def _check_rights(policy: str, data_license: str | None) -> None:
    """Make sure that the policy admits what the owner states.

    Raises:
        UsageError: it does not; say what to type.
    """
    from medvlm.licenses.expressions import commercial_use
    from medvlm.licenses.policy import admit

    reason = admit(policy, data_license, commercial_use(data_license))
    if reason is None:
        return
    own = "--data-license LicenseRef-own-data --license LicenseRef-own-data"
    stated = f"is {data_license}" if data_license else "is not stated"
    raise UsageError(
        f"--license {policy} leaves all out ({reason}): the license of your files {stated}; for your own data that "
        f"nobody else may have give {own}, else an SPDX id with --data-license"
    )


def _check_places(out: Path, inputs: list[Path], names: Path | None, others: list[Path]) -> None:
    """Make sure that neither the data set nor the private list lands where it must not.

    Raises:
        UsageError: the data set would lie in an input, or the list in the data set, in an input or in one of `others`,
            the key and the reports.
    """
    from medvlm.io import check_plain

    real = out.expanduser().resolve()
    for path in inputs:
        if real.is_relative_to(path.resolve()):
            raise UsageError(f"--out {out} lies within --input {path}, and would be read the next time; choose another")
    if names is None:
        return
    check_plain(names, "--names")
    place = names.expanduser().resolve()
    if place.is_relative_to(real):
        raise UsageError(f"--names {names} lies in the data set that it must be kept from; choose a file outside {out}")
    for path in (*inputs, *others):
        if place.is_relative_to(path.expanduser().resolve()):
            raise UsageError(f"--names {names} would overwrite or lie in {path}, which is read; choose another file")


def _words(options: Options, phi: str) -> list[str]:
    """Return the options as words of a command line, without paths: those can name a patient."""
    told = {"target_from": options.target_from, "data_license": options.data_license}
    told |= {"reports": {"none": None, "table": "REPORTS"}.get(options.reports, options.reports)}
    told |= {"window": options.window.name, "frames": options.frames.name, "views": options.views}
    told |= {"sections": options.sections, "dates": options.dates, "phi": phi}
    if options.target_from:
        told["sections"] = None
    line = ["--input", "INPUT"]
    for name, value in told.items():
        line += given.words("--" + name.replace("_", "-"), value) if value else []
    line += given.words("--max-images", options.max_images) if options.views == "study" else []
    line += ["--allow-burned-in"] if options.allow_burned_in else []
    return line + (["--allow-secondary"] if options.allow_secondary else [])
