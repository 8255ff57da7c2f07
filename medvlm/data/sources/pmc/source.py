"""`PmcSource`: the articles that `--input` names, as units that can be prepared one by one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts, card_of
from medvlm.data.sources.pmc import filelists, media, packages, reader, xml
from medvlm.data.sources.pmc.filelists import Lists
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import FolderPackage, Package, PackageError
from medvlm.errors import InputError
from medvlm.io import sha256_file

HOMEPAGE = "https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/"

LOOKED_FOR = "JATS articles (.nxml, .xml) and PMC packages (.tar.gz, .tgz, .tar, .zip)"

BULK_BYTES = 64 << 20
"""A tar of this size or more (`oa_bulk`) is taken for a collection: each of its articles is a unit of its own."""


class PmcSource:
    """Articles on disk: folders (searched to any depth), single XML files with their images beside them, archives.

    Args:
        inputs: what `--input` names. Nothing is read before `describe` or `units` is called.
        options: which articles and figures, and what is made of them.
    """

    facts = Facts(
        name="pmc",
        title="Figures and captions of open-access articles",
        summary="Each row is a figure (or one graphic of it) with its whole caption, the paragraphs that cite it, and "
        "the license of the figure or of its article with the words or address that state it.",
        tasks=("caption", "vqa"),
        size="8,203,807 articles (2026-09-07)",
        license="by row",
        gate="none",
        download="nothing: --ids, --query and --inventory fetch from the PMC Cloud Service what the policy admits",
        layout="JATS articles: a folder, an .nxml or .xml with its images beside it, a PMC .tar.gz package or a .zip",
        homepage=HOMEPAGE,
        citation="PMC Open Access Subset [Internet]. Bethesda (MD): National Library of Medicine. 2003-.",
        known_problems=(
            "A caption may name a third party in words that are not recognized; license_evidence shows what was.",
            "What made a picture (`modality`) is told by words of its caption; unsure words tell nothing.",
            "Captions may hold ages and histories of patients, as their articles published them.",
        ),
    )
    name = facts.name

    def __init__(self, inputs: Sequence[Path | str], options: PmcOptions = reader.DEFAULTS) -> None:
        self.inputs = [Path(path) for path in inputs]
        self.options = options

    def describe(self) -> list[dict[str, Any]]:
        """Return one entry for each input file, and within a folder for each folder that holds articles.

        Raises:
            InputError: an input is missing, cannot be read, or is of an unknown kind.
        """
        entries: list[dict[str, Any]] = []
        for path in self.inputs:
            with _input_errors(path):
                _check_kind(path)
                for folder, names in _used_files(path).items():
                    name = folder.relative_to(path).as_posix() if folder.is_relative_to(path) else ""
                    shown = str(folder if path.is_dir() else path)
                    entries.append({"name": packages.printable(name), **_description(shown, folder, names)})
        return entries

    def units(self) -> list[Unit]:
        """Return one unit for each article's XML, and for each small tar archive, sorted by name.

        Of several versions of an article (`PMC7.1/`, `PMC7.2/`, or `article-version` in the XML) all but the newest are
        units of one reject; the second newest is read where the newest is damaged.

        Raises:
            InputError: an input is missing, of an unknown kind, or holds no article.
        """
        locators: dict[tuple[str, ...], str] = {}
        declared: dict[str, tuple[str, int]] = {}
        for path in self.inputs:
            with _input_errors(path):
                _check_kind(path)
                found = list(_units(path, declared))
            if not found:
                raise InputError(f"{path}: no article found; looked for {LOOKED_FOR}")
            for unit in found:
                locators.setdefault(unit.locator, unit.name)
        units = _with_versions([(name, locator) for locator, name in locators.items()], declared)
        if self.options.limit is not None:
            units = _first(units, self.options.limit)
        taken: set[str] = set()
        named = [Unit(_free_name(unit.name, taken), unit.locator) for unit in units]
        return sorted(named, key=lambda unit: unit.name)

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Do nothing: the files lie on disk."""

    def read(self, unit: Unit) -> Iterator[Sample | Reject | Credit]:
        """Yield the samples, rejects and credits of one unit."""
        locator = unit.locator
        if locator[0] == "older":
            _, newest, *instead = locator
            own, of_newest = _parted(instead)
            if not own or self._readable(of_newest):
                yield reader.older_version(self.name, unit.name, newest)
                return
            locator = own
        kind, path, *members = locator
        where = unit.name.removesuffix(f"/{packages.printable(members[0])}") if members else unit.name
        try:
            package = _opened(kind, path, where)
        except PackageError as error:
            yield Reject(self.name, unit.name, error.reason, packages.printable(error.detail))
            return
        fallback = self._lists(Path(path), members)
        if not members:
            yield from reader.read_package(package, self.name, self.options, fallback=fallback)
        elif packages.is_archive(members[0]):
            yield from reader.read_nested(package, members[0], self.name, self.options, fallback=fallback)
        else:
            yield from reader.read_xml(package, members[0], self.name, set(), self.options, fallback)

    @staticmethod
    def _readable(locator: Sequence[str]) -> bool:
        """Tell whether a unit gives an article: one that is whole, or a damaged one with figures."""
        kind, path, *members = locator
        try:
            package = _opened(kind, path, path)
            names = members or reader.article_names(package)
            if any(packages.is_archive(name) for name in names):
                return True
            documents = (document for name in names for document in xml.read_documents(package.read(name)))
            return any(not d.damage or next(d.root.iter("fig"), None) is not None for d in documents)
        except (PackageError, xml.XmlError):
            return False

    def _lists(self, path: Path, members: list[str]) -> Lists | None:
        """Return PMC's lists beside an article or archive, and in the folders of `--input` that hold it."""
        file = path / members[0] if members and path.is_dir() else path
        roots = [p.resolve() for p in self.inputs]
        try:
            return Lists(filelists.beside(file, [root for root in roots if root in file.parents]))
        except OSError:
            return None

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card."""
        return card_of(self.facts)


def _parted(locators: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two locators that lie one after the other, the first with its length before it; two empty ones."""
    if not locators:
        return (), ()
    size = int(locators[0])
    return tuple(locators[1 : size + 1]), tuple(locators[size + 1 :])


def _opened(kind: str, path: str, name: str) -> Package:
    """Return a unit's folder or archive.

    Raises:
        PackageError: it cannot be read.
    """
    return _folder(path, _changed(path), name) if kind == "xml" else _archive(path, _changed(path), name, os.getpid())


@contextlib.contextmanager
def _input_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one line that names the input."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a readable file or folder") from error


def _check_kind(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; --input takes a folder, {LOOKED_FOR}")
    named = packages.is_xml(path.name) or packages.is_archive(path.name)
    if not (path.is_dir() or (path.is_file() and named)):
        raise InputError(f"{path}: unknown kind of file; --input takes a folder, {LOOKED_FOR}")


def _units(path: Path, declared: dict[str, tuple[str, int]]) -> Iterator[Unit]:
    """Yield the units of an input; `declared` gets the versions that their XML states."""
    real = path.resolve()
    if real.is_dir():
        for file in _files(real):
            name = f"{real.name}/{file.relative_to(real).as_posix()}"
            if packages.is_archive(file.name):
                yield from _archive_units(file, name, declared) or [Unit(name, ("archive", str(file)))]
            elif xml.is_article(file.name, head := _head(file)):
                yield _xml_unit(file, name, head, declared)
    elif packages.is_archive(real.name):
        yield from _archive_units(real, real.name, declared)
    elif xml.is_article(real.name, head := _head(real)):
        yield _xml_unit(real, f"{real.parent.name}/{real.name}", head, declared)


def _xml_unit(file: Path, name: str, head: bytes, declared: dict[str, tuple[str, int]]) -> Unit:
    if version := xml.declared_version(head):
        declared[name] = version
    return Unit(name, ("xml", str(file.parent), file.name))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the XML files and archives below a folder; hidden folders and macOS's shadow files are passed over."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        for name in sorted(names):
            file = Path(parent, name)
            # A pipe may be named like an article, and would be waited for without end.
            if not name.startswith("._") and (packages.is_xml(name) or packages.is_archive(name)) and file.is_file():
                yield file


def _is_article(file: Path) -> bool:
    return xml.is_article(file.name, _head(file))


def _head(file: Path) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(packages.HEAD_BYTES)


def _archive_units(file: Path, name: str, declared: dict[str, tuple[str, int]]) -> list[Unit]:
    """Return the units of an archive: its articles and packages; a small tar itself, as listing it means reading it."""
    if not file.name.lower().endswith(".zip") and file.stat().st_size < BULK_BYTES:
        return [Unit(name, ("archive", str(file)))]
    return _member_units(file, name, declared)


def _member_units(file: Path, name: str, declared: dict[str, tuple[str, int]]) -> list[Unit]:
    """Return the articles and packages of an archive as units; an archive that cannot be read is one itself."""
    try:
        package = packages.open_archive(name, file)
        articles = reader.article_names(package)
        versions = reader.declared_versions(package, articles)
    except PackageError:
        return [Unit(name, ("archive", str(file)))]  # reading it says what is wrong, and counts it
    declared.update({f"{name}/{member}": version for member, version in versions.items()})
    members = articles + [n for n in package.names() if packages.is_archive(n)]
    return [Unit(f"{name}/{member}", ("archive", str(file), member)) for member in members]


def _with_versions(found: list[tuple[str, tuple[str, ...]]], declared: dict[str, tuple[str, int]]) -> list[Unit]:
    """Return units, those of older versions with the newest's name, and the newest of them with both locators."""
    older = packages.older_versions((name for name, _ in found), declared)
    spare = packages.spare_versions(older, declared)
    places = dict(found)
    units = []
    for name, locator in found:
        if newest := older.get(name):
            instead = (str(len(locator)), *locator, *places[newest]) if name in spare else ()
            locator = ("older", newest, *instead)
        units.append(Unit(name, locator))
    return units


def _first(units: list[Unit], limit: int) -> list[Unit]:
    """Return the first units by name that hold `limit` articles, and the older versions of those.

    A tar that is one unit counts the articles and packages in it, and is parted where it holds too many. Files count as
    one article, whatever is in them.
    """
    taken: list[Unit] = []
    left = limit
    for unit in sorted((unit for unit in units if unit.locator[0] != "older"), key=lambda unit: unit.name):
        if left <= 0:
            break
        parts = _parts(unit)
        newest = [part for part in parts if part.locator[0] != "older"]
        taken += [unit] if len(newest) <= left else _with_older(sorted(newest, key=lambda u: u.name)[:left], parts)
        left -= len(newest)
    return _with_older(taken, units)


def _with_older(taken: list[Unit], units: list[Unit]) -> list[Unit]:
    names = {unit.name for unit in taken}
    return taken + [unit for unit in units if unit.locator[0] == "older" and unit.locator[1] in names]


def _parts(unit: Unit) -> list[Unit]:
    """Return the articles and packages in a whole tar as units; of any other unit itself."""
    kind, path, *members = unit.locator
    if kind != "archive" or members:
        return [unit]
    declared: dict[str, tuple[str, int]] = {}
    found = _member_units(Path(path), unit.name, declared)
    return _with_versions([(part.name, part.locator) for part in found], declared) or [unit]


def _free_name(name: str, taken: set[str]) -> str:
    name = packages.printable(name)
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    taken.add(free)
    return free


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise PackageError("file cannot be read", str(error.strerror)) from error


@functools.lru_cache(maxsize=1)
def _folder(path: str, changed: int, name: str) -> Package:
    """Return a folder as a package, kept for the next article in it. `changed` is the folder's time stamp."""
    return FolderPackage(name, Path(path))


@functools.lru_cache(maxsize=1)
def _archive(path: str, changed: int, name: str, process: int) -> Package:
    """Return an opened archive, kept for its next article. `process`: a fork must not share a file position."""
    return packages.open_archive(name, Path(path))


def _used_files(path: Path) -> dict[Path, list[str]]:
    """Return folder -> names of the files in it (and one below) that reading `path` may use."""
    if not path.is_dir():
        path = path.resolve()  # an article is read with what lies beside it, not beside a link to it
        names = [path.name] if packages.is_archive(path.name) else [path.name, *_pictures(path.parent)]
        return {path.parent: names + [found.name for found in filelists.beside(path, ())]}
    used: dict[Path, list[str]] = {}
    with_articles: set[Path] = set()
    for file in _files(path):
        if packages.is_archive(file.name):
            used.setdefault(file.parent, []).append(file.name)
        elif _is_article(file):
            used.setdefault(file.parent, []).append(file.name)
            with_articles.add(file.parent)
        else:
            continue
        for found in filelists.beside(file, [path]):
            used.setdefault(found.parent, []).append(found.name)
    for folder in with_articles:
        used[folder] += _pictures(folder)
    return used


def _pictures(folder: Path) -> list[str]:
    return [n for n in packages.folder_names(folder) if n.lower().endswith(tuple(f".{e}" for e in media.QUALITY))]


def _description(path: str, folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return path, hash and size; several files are hashed as a list of their names and hashes."""
    files = sorted(set(names))
    size = sum((folder / name).stat().st_size for name in files)
    if len(files) == 1:
        return {"path": packages.printable(path), "sha256": sha256_file(folder / files[0]), "bytes": size}
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{sha256_file(folder / name)}\n".encode("utf-8", "surrogateescape"))
    return {"path": packages.printable(path), "sha256": digest.hexdigest(), "bytes": size}
