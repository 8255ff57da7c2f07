"""What is made of figures, whatever their source: panels, modality, questions."""
