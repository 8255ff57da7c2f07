"""`medvlm prepare pmc`: where the articles come from, and what is made of their figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli.common import DebugOption, QuietOption, say, warn
from medvlm.cli.prepare_options import CHOOSE, READ, RUN
from medvlm.cli.prepare_run import Job, build, source_named, upload
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.prepare import Outcome
    from medvlm.data.sources.pmc.cloud import CloudSource
    from medvlm.data.sources.pmc.options import PmcOptions


def pmc(
    input: given.Input = None,
    ids: Annotated[
        str | None,
        typer.Option(
            help="Articles of PMC to fetch: PMC123,PMC456.2 or a file with one id a line.", rich_help_panel=READ
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(help="Articles of PMC that this search of PubMed Central finds.", rich_help_panel=READ),
    ] = None,
    inventory: Annotated[
        bool, typer.Option("--inventory", help="All of PMC open access, by its daily inventory.", rich_help_panel=READ)
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many articles.", rich_help_panel=READ)] = None,
    since: Annotated[
        str, typer.Option(metavar="DAY", help="Only articles published then or later.", rich_help_panel=READ)
    ] = "",
    article_type: Annotated[
        str, typer.Option(help="Only these JATS types: research-article,case-report ...", rich_help_panel=READ)
    ] = "",
    kinds: Annotated[
        str, typer.Option(help="Of figure, supplementary, table, graphic, equation.", rich_help_panel=CHOOSE)
    ] = "figure,supplementary",
    modality: Annotated[
        str, typer.Option(help="Only these: radiology, ct, mri, histology ...", rich_help_panel=CHOOSE)
    ] = "",
    panels: Annotated[
        str, typer.Option(help="Compound figures: keep, split or drop.", rich_help_panel=CHOOSE)
    ] = "keep",
    task: Annotated[
        str, typer.Option(help="caption, or vqa: questions made from captions.", rich_help_panel=CHOOSE)
    ] = "caption",
    min_side: Annotated[
        int, typer.Option(min=0, help="Drop pictures with a shorter side, in pixels.", rich_help_panel=CHOOSE)
    ] = 0,
    max_side: Annotated[
        int, typer.Option(min=0, help="Shrink pictures with a longer side; 0 keeps all.", rich_help_panel=CHOOSE)
    ] = 0,
    out: given.Out = Path("data/pmc"),
    license: given.License = "commercial",
    split_ratio: given.Ratio = given.RATIO,
    seed: given.Seed = 0,
    drop_duplicates: given.DropDuplicates = False,
    push: given.Push = None,
    public: given.Public = False,
    push_third_party: given.PushThirdParty = False,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server with PMC's bucket: a mirror.", rich_help_panel=RUN)
    ] = None,
    eutils: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server for searches.", rich_help_panel=RUN)
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="NCBI_API_KEY", help="NCBI key: 10 searches a second, not 3.", rich_help_panel=RUN),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep fetched files here, not in OUT/.objects.", rich_help_panel=RUN),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Requests at a time, of each process.", rich_help_panel=RUN)
    ] = 16,
    skip_failed: Annotated[
        bool,
        typer.Option("--skip-failed", help="Count articles that cannot be fetched; do not stop.", rich_help_panel=RUN),
    ] = False,
    workers: given.Workers = 0,
    engine: given.Engine = "local",
    ray_address: given.RayAddress = None,
    shard: given.Shard = None,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Figures and captions of PubMed Central articles (JATS), from disk or from PMC.

    --input takes a folder, an .nxml or .xml with its images beside it, a PMC .tar.gz package or a .zip of them;
    --ids, --query and --inventory fetch from PMC. Without any of them the embedded synthetic sample is used.

    Example: medvlm prepare pmc --query '"chest ct"[title]' --limit 100 --modality radiology --out data/chest
    """
    from medvlm.data.sources.pmc.options import parse

    options = parse(
        kinds=kinds,
        article_type=article_type,
        since=since,
        limit=limit,
        panels=panels,
        task=task,
        modality=modality,
        min_side=min_side,
        max_side=max_side,
    )
    job = Job(out, license, split_ratio, seed, drop_duplicates, workers, engine, ray_address, shard, overwrite, quiet)
    chosen = [bool(input), ids is not None, query is not None, inventory]
    if sum(chosen) > 1:
        raise UsageError("--input, --ids, --query and --inventory exclude one another; make a data set of each")
    if query is not None and not query.strip():
        raise UsageError('--query is empty; write it as for PubMed Central: --query "chest ct"')
    if any(chosen[1:]):
        cloud = _cloud(ids, query, inventory, job, options, store, endpoint, eutils, concurrency, api_key, skip_failed)
        outcome = _fetch(cloud, job, [*_selection(ids, query, inventory), *_words(options)], options.as_json())
    elif input:
        source = source_named("pmc", inputs=input, options=options)
        outcome = build(source, job, ["pmc", *given.words("--input", *input), *_words(options)], options.as_json())
    else:
        outcome = _sample(options, job)
    if outcome.left is None:
        upload(out, push, public, push_third_party)


def _sample(options: PmcOptions, job: Job) -> Outcome:
    """Build the embedded sample: the same pictures and texts whatever is asked of real articles."""
    asked = options.as_json()
    if asked:
        names = ", ".join(_flag(name) for name in asked)
        raise UsageError(f"{names}: name the articles too, with --input, --ids, --query or --inventory")
    say(
        "no --input: building from the embedded synthetic sample; for real articles: --input PATH, --ids, --query",
        job.quiet,
    )
    source = source_named("phantom", seed=job.seed, kind="sample")
    return build(source, job, ["pmc"], {"kind": "sample"})


def _cloud(
    ids: str | None,
    query: str | None,
    inventory: bool,
    job: Job,
    options: PmcOptions,
    store: Path | None,
    endpoint: str | None,
    eutils: str | None,
    concurrency: int,
    api_key: str | None,
    skip_failed: bool,
) -> CloudSource:
    from medvlm.data.sources.pmc import cloud

    selection = cloud.Selection(
        ids=cloud.parse_ids(ids) if ids is not None else (), query=query or "", inventory=inventory
    )
    return cloud.CloudSource(
        selection,
        store or job.out / ".objects",
        endpoint=endpoint or cloud.DEFAULT_ENDPOINT,
        eutils=eutils or cloud.DEFAULT_EUTILS,
        options=options,
        license=job.license,
        concurrency=concurrency,
        api_key=api_key,
        allow_failed=skip_failed,
    )


def _fetch(cloud: CloudSource, job: Job, words: list[str], asked: dict[str, Any]) -> Outcome:
    """Build what a selection of PMC names, and forget its plan once that is done."""
    old_plan = cloud.planned()
    outcome = build(cloud, job, words, asked)
    for note in cloud.notes():
        warn(note)
    if outcome.left is not None:
        return outcome
    cloud.complete()
    if outcome.up_to_date and old_plan:
        # The plan was that of the finished set itself, whose run ended before it could drop it: ask the service anew.
        outcome = build(cloud, job, words, asked)
        cloud.complete()
    return outcome


def _selection(ids: str | None, query: str | None, inventory: bool) -> list[str]:
    if inventory:
        return ["pmc", "--inventory"]
    return ["pmc", *given.words("--ids", *filter(None, [ids])), *given.words("--query", *filter(None, [query]))]


def _words(options: PmcOptions) -> list[str]:
    """Return the options that differ from the defaults as words of a command line."""
    line: list[str] = []
    for name, value in options.as_json().items():
        line += given.words(_flag(name), ",".join(value) if isinstance(value, list) else value)
    return line


def _flag(name: str) -> str:
    singular = {"modalities": "modality", "article_types": "article_type"}
    return "--" + singular.get(name, name).replace("_", "-")
