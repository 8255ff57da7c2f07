"""`rouge` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Rouge(base.CorpusMetric):
    """ROUGE-L as coco-caption computes it; ROUGE-1, -2 and -L F1 as rouge_score computes them, stemmed or not."""

    metric = "rouge"
    description = (
        "ROUGE-L as coco-caption computes it; ROUGE-1, -2 and -L F1 as rouge_score computes them, stemmed or not."
    )
    citation = "Lin 2004, ROUGE: a package for automatic evaluation of summaries. ACL workshop."
