"""`cider` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Cider(base.CorpusMetric):
    """CIDEr-D as coco-caption computes it, and CIDEr without clipping and length penalty, both times 10."""

    metric = "cider"
    description = "CIDEr-D as coco-caption computes it, and CIDEr without clipping and length penalty, both times 10."
    citation = "Vedantam, Zitnick and Parikh 2015, CIDEr: consensus-based image description evaluation. CVPR."
