"""Articles from the PMC Cloud Service, by HTTP: planned once, fetched a chunk at a time, read from disk.

selection  which articles are asked for: ids, a search, all
protocol   what the service says: addresses, listings, metadata, manifest
http       one client: bounded, patient, counted
eutils     a search as a list of ids
inventory  all articles with their ETags, streamed
plan       the file that says which articles a run is about
planning   from a selection to its plan
store      what has been fetched, by md5
fetch      what a chunk of articles needs, and nothing else
source     the articles as units: `CloudSource`
"""

from __future__ import annotations

from medvlm.data.sources.pmc.cloud.http import Retries
from medvlm.data.sources.pmc.cloud.selection import Selection, parse_ids
from medvlm.data.sources.pmc.cloud.source import DEFAULT_ENDPOINT, DEFAULT_EUTILS, CloudSource

__all__ = ["DEFAULT_ENDPOINT", "DEFAULT_EUTILS", "CloudSource", "Retries", "Selection", "parse_ids"]
