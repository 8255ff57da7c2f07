"""`vqa` for Hugging Face evaluate."""

# evaluate.load reads these lines to find what to install: one import a line, and no comment behind it.
from medvlm.evaluate.hf import base


class Vqa(base.CorpusMetric):
    """Accuracy of answers, closed, open and multiple choice apart; F1 and recall of open ones."""

    metric = "vqa"
    description = "Accuracy of answers, closed, open and multiple choice apart; F1 and recall of open ones."
    citation = "Antol et al. 2015, VQA: visual question answering. ICCV; Li et al. 2023, LLaVA-Med. arXiv:2306.00890."
