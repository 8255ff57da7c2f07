"""The metrics as `evaluate.Metric`: one folder for each, loaded with `evaluate.load(medvlm.metric_path("bleu"))`."""
