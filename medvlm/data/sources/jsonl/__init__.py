"""`jsonl`: conversations and prompt-answer pairs about images, as fine-tuning tools write them."""

from __future__ import annotations

from medvlm.data.sources.jsonl.source import JsonlSource

__all__ = ["JsonlSource"]
