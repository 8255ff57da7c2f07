"""`findings` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Findings(base.CorpusMetric):
    """F1 of the 14 CheXpert observations by rules, with negation and sides: a rule-based proxy."""

    metric = "findings"
    description = "F1 of the 14 CheXpert observations by rules, with negation and sides: a rule-based proxy."
    citation = (
        "Irvin et al. 2019, CheXpert: a large chest radiograph dataset with uncertainty labels. arXiv:1901.07031."
    )
