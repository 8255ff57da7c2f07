"""From a package to samples: every picture of every figure becomes one, or a counted reason why not."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator

from medvlm.data.look import Look, PictureError, examine
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources.pmc import jats, packages, xml
from medvlm.data.sources.pmc.media import MediaError, MediaIndex
from medvlm.data.sources.pmc.packages import Package, PackageError
from medvlm.data.sources.pmc.pictures import Picture
from medvlm.io import sha256_bytes
from medvlm.licenses.expressions import commercial_use

MAX_DEPTH = 1
"""An archive may hold archives (a zip of PMC packages); those may hold none."""


def read_package(package: Package, source_name: str, depth: int = 0) -> Iterator[Sample | Reject]:
    """Yield the samples and rejects of every article in a package. Damage never raises; it becomes a `Reject`.

    Args:
        package: the files; images are looked for beside each article's XML and one folder below.
        source_name: what samples carry as their `source`.
        depth: how many archives this one lies in.
    """
    try:
        articles = article_names(package)
    except PackageError as error:
        yield _reject(source_name, package.name, error.reason, error.detail)
        return
    nested = [n for n in package.names() if packages.is_archive(n)]
    if not articles and not nested:
        yield _reject(source_name, package.name, "no article in package", f"{len(package.names())} files")
    older = packages.older_versions(articles + nested)
    seen: set[str] = set()
    for name in articles + nested:
        if name in older:
            yield older_version(source_name, f"{package.name}/{name}", older[name])
        elif name in nested:
            yield from read_nested(package, name, source_name, depth + 1)
        else:
            yield from read_xml(package, name, source_name, seen)


def older_version(source_name: str, where: str, newest: str) -> Reject:
    """Return the reason why one version of an article is not read; `newest` is the name of the one that is."""
    return _reject(source_name, where, "older version", f"{newest} is newer")


def article_names(package: Package) -> list[str]:
    """Return the names of a package's XML files that are, or should be, JATS.

    Raises:
        PackageError: one of them cannot be read.
    """
    return [n for n in package.names() if packages.is_xml(n) and xml.is_article(n, package.head(n))]


def read_nested(package: Package, name: str, source_name: str, depth: int = 1) -> Iterator[Sample | Reject]:
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
    yield from read_package(inner, source_name, depth)


def read_xml(package: Package, name: str, source_name: str, seen: set[str]) -> Iterator[Sample | Reject]:
    """Yield what one XML file of a package holds. `seen` are the groups of articles read so far; it is added to."""
    where = f"{package.name}/{name}"
    try:
        documents = xml.read_documents(package.read(name))
    except (PackageError, xml.XmlError) as error:
        yield _reject(source_name, where, error.reason, error.detail)
        return
    index = _index(package, name.rpartition("/")[0])
    for document in documents:
        article = jats.read_article(document)
        if document.damage:
            yield _reject(source_name, where, "xml damaged: what is whole was used", document.damage)
        if article.group in seen:
            yield _reject(source_name, where, "duplicate article", article.group)
            continue
        seen.add(article.group)
        for drop in article.drops:
            yield _reject(source_name, f"{where} {drop.where}", drop.reason, drop.detail)
        yield from _samples(article, package, index, where, source_name)


def _index(package: Package, folder: str) -> MediaIndex:
    """Return the pictures in a folder of a package and in the folders below it that are no packages of their own."""
    if folder not in package.indexes:
        prefix = f"{folder}/" if folder else ""
        names = [n[len(prefix) :] for n in package.names() if n.startswith(prefix)]
        packaged = {n.rpartition("/")[0] for n in names if packages.is_xml(n)} - {""}
        near = [n for n in names if n.count("/") < 2 and n.rpartition("/")[0] not in packaged]
        sole = sum(packages.is_xml(n) for n in near) == 1
        package.indexes[folder] = MediaIndex(near, prefix, sole)
    return package.indexes[folder]


def _samples(
    article: jats.Article, package: Package, index: MediaIndex, where: str, source_name: str
) -> Iterator[Sample | Reject]:
    used: collections.Counter[str] = collections.Counter()
    for figure in article.figures:
        for picture in figure.pictures:
            place = "/".join(_id_part(p) for p in (article.group, figure.key, picture.panel or "-", "caption"))
            used[place] += 1
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
    return re.sub(r"[\s/]+", "_", text)


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
        journal=article.journal,
        year=article.year,
        article_type=figure.article_type,
        source=source_name,
        group=article.group,
        pmcid=article.pmcid,
        doi=article.doi,
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
