"""`bleu` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Bleu(base.CorpusMetric):
    """Corpus BLEU-1 to BLEU-4, unsmoothed, as coco-caption computes it; by default on PTB tokens without Java."""

    metric = "bleu"
    description = (
        "Corpus BLEU-1 to BLEU-4, unsmoothed, as coco-caption computes it; by default on PTB tokens without Java."
    )
    citation = "Papineni et al. 2002, BLEU: a method for automatic evaluation of machine translation. ACL."
