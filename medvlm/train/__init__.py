"""From a recipe to a run folder: the plan, the loss, the loop around the Trainer, what every step leaves behind."""
