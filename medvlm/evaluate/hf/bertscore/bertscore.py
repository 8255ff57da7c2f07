"""`bertscore` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Bertscore(base.CorpusMetric):
    """Precision, recall and F1 of BERTScore; needs the extra medvlm[bertscore]."""

    metric = "bertscore"
    description = "Precision, recall and F1 of BERTScore; needs the extra medvlm[bertscore]."
    citation = "Zhang et al. 2020, BERTScore: evaluating text generation with BERT. arXiv:1904.09675."
