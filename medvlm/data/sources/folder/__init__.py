"""`folder`: a folder of images with a table of their texts, or with a text file of the same name beside each."""

from __future__ import annotations

from medvlm.data.sources.folder.source import FolderSource

__all__ = ["FolderSource"]
