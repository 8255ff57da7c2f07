"""`chexbert` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Chexbert(base.CorpusMetric):
    """F1 of the 14 CheXpert observations that CheXbert finds; needs the extra medvlm[chexbert]."""

    metric = "chexbert"
    description = "F1 of the 14 CheXpert observations that CheXbert finds; needs the extra medvlm[chexbert]."
    citation = "Smit et al. 2020, CheXbert: accurate radiology report labeling using BERT. arXiv:2004.09167."
