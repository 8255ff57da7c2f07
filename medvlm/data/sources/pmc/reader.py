"""From a package to samples: every picture of every figure becomes one, or a counted reason why not."""

from __future__ import annotations

import bisect
import collections
import contextlib
import re
from collections.abc import Iterator, Sequence

from medvlm.data.look import Look, PictureError, examine
from medvlm.data.sample import Credit, Image, Reject, Sample
from medvlm.data.sources.pmc import jats, packages, xml
from medvlm.data.sources.pmc.filelists import Lists, named_in
from medvlm.data.sources.pmc.front import Front, Told, read_front
from medvlm.data.sources.pmc.media import MediaError, MediaIndex
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import Package, PackageError
from medvlm.data.sources.pmc.pictures import Picture
from medvlm.data.sources.pmc.rights import Rights, metadata_rights
from medvlm.io import sha256_bytes
from medvlm.licenses.expressions import commercial_use
from medvlm.licenses.policy import admit

MAX_DEPTH = 1
"""An archive may hold archives (a zip of PMC packages); those may hold none."""

DEFAULTS = PmcOptions()
_INDEXES_KEPT = 64
_APART = re.compile(r"[\s/]+")

Item = Sample | Reject | Credit


def read_package(
    package: Package,
    source_name: str,
    options: PmcOptions = DEFAULTS,
    depth: int = 0,
    fallback: Rights | Lists | None = None,
) -> Iterator[Item]:
    """Yield the samples, rejects and credit of every article in a package. Damage never raises; it becomes a `Reject`.

    Args:
        package: the files; images are looked for beside each article's XML and one folder below.
        source_name: what samples carry as their `source`.
        options: which articles and figures, and what is made of them.
        depth: how many archives this one lies in.
        fallback: as `read_xml` takes it.
    """
    try:
        articles = article_names(package)
    except PackageError as error:
        yield _reject(source_name, package.name, error.reason, error.detail)
        return
    nested = [n for n in package.names() if packages.is_archive(n)]
    if not articles and not nested:
        yield _reject(source_name, package.name, "no article in package", f"{len(package.names())} files")
    older = packages.older_versions(articles + nested, declared_versions(package, articles))
    seen: set[str] = set()
    for name in articles + nested:
        if name in older:
            yield older_version(source_name, f"{package.name}/{name}", older[name])
        elif name in nested:
            yield from read_nested(package, name, source_name, options, depth + 1, fallback)
        else:
            yield from read_xml(package, name, source_name, seen, options, fallback)


def older_version(source_name: str, where: str, newest: str) -> Reject:
    """Return the reason why one version of an article is not read; `newest` is the name of the one that is."""
    return _reject(source_name, where, "older version", f"{newest} is newer")


def article_names(package: Package) -> list[str]:
    """Return the names of a package's XML files that are, or should be, JATS.

    Raises:
        PackageError: one of them cannot be read.
    """
    names = [n for n in package.names() if packages.is_xml(n)]
    return [n for n in names if n.lower().endswith(".nxml") or xml.is_article(n, package.head(n))]


def declared_versions(package: Package, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return name -> article and version of those XML files that state one; nothing where there is only one file."""
    found = ((name, xml.declared_version(package.head(name))) for name in names if len(names) > 1)
    return {name: version for name, version in found if version}


def read_nested(
    package: Package,
    name: str,
    source_name: str,
    options: PmcOptions = DEFAULTS,
    depth: int = 1,
    fallback: Rights | Lists | None = None,
) -> Iterator[Item]:
    """Yield what an archive within a package holds."""
    where = f"{package.name}/{name}"
    if depth > MAX_DEPTH:
        yield _reject(source_name, where, "archive nested too deep", "unpack the outer archive")
        return
    try:
        inner = packages.open_nested(where, package.read(name))
    except PackageError as error:
        yield _reject(source_name, where, error.reason, error.detail)
        return
    yield from read_package(inner, source_name, options, depth, fallback)


def read_xml(
    package: Package,
    name: str,
    source_name: str,
    seen: set[str],
    options: PmcOptions = DEFAULTS,
    fallback: Rights | Lists | None = None,
    license_policy: str = "any",
    pmcid: str | None = None,
) -> Iterator[Item]:
    """Yield what one XML file of a package holds.

    Args:
        package: where the file and its images are.
        name: the file's.
        source_name: what samples carry as their `source`.
        seen: the groups of articles read so far; it is added to.
        options: which articles and figures, and what is made of them.
        fallback: what PMC says of the article (`rights.metadata_rights`), or lists that are asked by its PMC id.
        license_policy: as `wanted` takes it; the files of pictures that it does not admit are not opened.
        pmcid: the article that the file is known to hold, for XML without an id; one with another id is not read.
    """
    where = f"{package.name}/{name}"
    try:
        documents = xml.read_documents(package.read(name))
    except (PackageError, xml.XmlError) as error:
        yield _reject(source_name, where, error.reason, error.detail)
        return
    index = _index(package, name.rpartition("/")[0])
    for document in documents:
        front = read_front(document.root, _told(fallback, package.name, name))
        if pmcid and (front.pmcid or pmcid) != pmcid:
            yield _reject(source_name, where, "article is another", f"{front.pmcid} in place of {pmcid}")
            continue
        front.pmcid = front.pmcid or pmcid
        group = jats.group_of(front, document)
        if document.damage:
            yield _reject(source_name, where, "xml damaged: what is whole was used", document.damage)
        if group in seen:
            yield _reject(source_name, where, "duplicate article", group)
            continue
        seen.add(group)
        if isinstance(fallback, Lists) and fallback.retracted(front.pmcid or named_in(package.name, name)):
            yield _reject(source_name, where, "retracted article", "PMC file list")
            continue
        if reason := not_asked_for(front, options):
            yield _reject(source_name, where, *reason)
            continue
        article = jats.read_article(document, front, options.kinds)
        yield from _article(article, package, index, where, source_name, options, license_policy)


def _told(fallback: Rights | Lists | None, package: str, name: str) -> Told:
    """Return what PMC says of an article, where it comes from lists as the question to ask with its PMC id."""
    if not isinstance(fallback, Lists):
        return fallback
    lists = fallback
    return lambda pmcid: lists.rights(pmcid or named_in(package, name))


def not_asked_for(front: Front, options: PmcOptions) -> tuple[str, str] | None:
    """Return the reason why the options leave an article out, and its detail, or None.

    An article without a date is not certainly older than `since`, and stays.
    """
    if options.since and front.published and front.published < options.since:
        return "older than --since", front.published.isoformat()
    if options.article_types and front.article_type not in options.article_types:
        return "article type not asked for", front.article_type or "none stated"
    return None


def wanted(
    data: bytes,
    names: Sequence[str],
    license_policy: str,
    options: PmcOptions = DEFAULTS,
    article_license: str | None = None,
) -> list[str]:
    """Return which media files reading an article would open: those of admitted figures, of each picture the best.

    Args:
        data: the article's XML; what cannot be read wants nothing.
        names: the media files there are.
        license_policy: as `medvlm.licenses.policy.admit` takes it; it is asked of each figure's own rights.
        options: as `read_xml` takes them.
        article_license: PMC's code ("CC BY") for the article; it counts as `rights.no_freer` says.

    Raises:
        UsageError: the license policy is malformed.
    """
    try:
        forms = wanted_forms(data, names, license_policy, options, article_license)
    except xml.XmlError:
        return []
    return list(dict.fromkeys(files[0] for files in forms))


def wanted_forms(
    data: bytes,
    names: Sequence[str],
    license_policy: str,
    options: PmcOptions = DEFAULTS,
    article_license: str | None = None,
    pmcid: str | None = None,
) -> list[list[str]]:
    """Return for each picture that reading would open its files, in the order in which they are tried.

    Args:
        data: the article's XML.
        names: as `wanted` takes them.
        license_policy: as `wanted` takes it.
        options: as `read_xml` takes them.
        article_license: as `wanted` takes it.
        pmcid: as `read_xml` takes it.

    Raises:
        UsageError: the license policy is malformed.
        xml.XmlError: the XML holds no article.
    """
    index = MediaIndex(names)
    found: dict[tuple[str, ...], None] = {}
    for document in xml.read_documents(data):
        front = read_front(document.root, metadata_rights(article_license))
        if not_asked_for(front, options) or (pmcid and (front.pmcid or pmcid) != pmcid):
            continue
        for figure in jats.read_article(document, front, options.kinds).figures:
            license = figure.rights.license
            if admit(license_policy, license, commercial_use(license)) is None:
                found.update((forms, None) for picture in figure.pictures if (forms := _forms(picture, index)))
    return [list(forms) for forms in found]


def _forms(picture: Picture, index: MediaIndex) -> tuple[str, ...]:
    """Return the files that `_picture` would try, the best first."""
    found: list[str] = []
    for href in picture.hrefs:
        with contextlib.suppress(MediaError):
            found += index.find(href)
    return tuple(dict.fromkeys(found))


def _index(package: Package, folder: str) -> MediaIndex:
    """Return the pictures in a folder of a package and in the folders below it that are no packages of their own."""
    if folder not in package.indexes:
        prefix = f"{folder}/" if folder else ""
        # The names are sorted, and a collection has many folders.
        names = package.names()
        start, end = bisect.bisect_left(names, prefix), bisect.bisect_left(names, f"{prefix}\U0010ffff")
        names = [n[len(prefix) :] for n in names[start:end]]
        packaged = {n.rpartition("/")[0] for n in names if packages.is_xml(n)} - {""}
        near = [n for n in names if n.count("/") < 2 and n.rpartition("/")[0] not in packaged]
        sole = sum(packages.is_xml(n) for n in near) == 1
        if len(package.indexes) >= _INDEXES_KEPT:
            package.indexes.clear()
        package.indexes[folder] = MediaIndex(near, prefix, sole)
    return package.indexes[folder]


def _article(
    article: jats.Article,
    package: Package,
    index: MediaIndex,
    where: str,
    source_name: str,
    options: PmcOptions,
    license_policy: str,
) -> Iterator[Item]:
    """Yield all that one article gives, after the steps over its figures."""
    # The steps need numpy and Pillow, which reading the text alone does not.
    from medvlm.data.figures import steps

    def items() -> Iterator[Item]:
        yield article.front.credit(article.group)
        for drop in article.drops:
            yield _reject(source_name, f"{where} {drop.where}", drop.reason, drop.detail)
        yield from _samples(article, package, index, where, source_name, license_policy)

    yield from steps.apply(items(), options, article.front.subjects)


def _samples(
    article: jats.Article, package: Package, index: MediaIndex, where: str, source_name: str, license_policy: str
) -> Iterator[Sample | Reject]:
    used: collections.Counter[str] = collections.Counter()
    group = _id_part(article.group)
    for figure in article.figures:
        license = figure.rights.license
        refused = admit(license_policy, license, commercial_use(license))
        for picture in figure.pictures:
            place = f"{group}/{_id_part(figure.key)}/{_id_part(picture.panel or '-')}/caption"
            used[place] += 1
            if refused:
                yield _reject(source_name, f"{place}/{used[place] - 1}", refused, license or "none stated")
                continue
            try:
                name, data, look = _picture(picture, package, index)
            except MediaError as error:
                yield _reject(source_name, f"{where} fig {figure.key}", error.reason, error.detail)
                continue
            image = Image(data, packages.printable(name.rpartition("/")[2]), look)
            yield _sample(f"{place}/{used[place] - 1}", image, article, figure, picture.panel, source_name)


def _reject(source_name: str, where: str, reason: str, detail: str = "") -> Reject:
    return Reject(source_name, packages.printable(where), reason, packages.printable(detail))


def _id_part(text: str) -> str:
    return text if text.isalnum() or text == "-" else _APART.sub("_", text)


def _picture(picture: Picture, package: Package, index: MediaIndex) -> tuple[str, bytes, Look]:
    """Return the best file of a picture that is whole, its bytes and its look.

    Raises:
        MediaError: none is; the reason tells of the best one.
    """
    errors: list[MediaError] = []
    for href in picture.hrefs:
        try:
            names = index.find(href)
        except MediaError as error:
            errors.append(error)
            continue
        for name in names:
            try:
                data = package.read(name)
                look = examine(data)
            except (PictureError, PackageError) as error:
                errors.append(MediaError(error.reason, f"{name}: {error.detail}"))
            else:
                return name, data, look
    # A damaged file says more than the absence of its alternatives.
    raise min(errors, key=lambda e: e.reason.startswith("no image"), default=MediaError("no image reference"))


def _sample(
    sample_id: str, image: Image, article: jats.Article, figure: jats.Figure, panel: str | None, source_name: str
) -> Sample:
    return Sample(
        id=sample_id,
        image=image,
        task="caption",
        prompt="",
        target=figure.caption,
        mentions=figure.mentions,
        language=figure.language,
        panel=panel,
        kind=figure.kind,
        compound=figure.compound,
        journal=article.front.journal,
        year=article.front.year,
        article_type=figure.article_type,
        source=source_name,
        group=article.group,
        pmcid=article.front.pmcid,
        doi=article.front.doi,
        figure_id=figure.id,
        label=figure.label,
        file_name=image.name,
        sha256=sha256_bytes(image.data),
        license=figure.rights.license,
        license_scope=figure.rights.scope,
        license_evidence=figure.rights.evidence,
        third_party=figure.rights.third_party,
        commercial_use=commercial_use(figure.rights.license),
    )
