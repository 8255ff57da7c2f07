"""`radgraph` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Radgraph(base.CorpusMetric):
    """F1 of the entities and relations that RadGraph finds; needs the extra medvlm[radgraph]."""

    metric = "radgraph"
    description = "F1 of the entities and relations that RadGraph finds; needs the extra medvlm[radgraph]."
    citation = "Jain et al. 2021, RadGraph: extracting clinical entities and relations. arXiv:2106.14463."
