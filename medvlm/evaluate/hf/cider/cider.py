"""`cider` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Cider(base.CorpusMetric):
    """CIDEr-D as coco-caption computes it (times 10), with document frequencies from the references."""

    metric = "cider"
    description = "CIDEr-D as coco-caption computes it (times 10), with document frequencies from the references."
    citation = "Vedantam, Zitnick and Parikh 2015, CIDEr: consensus-based image description evaluation. CVPR."
