"""Who may do what: the registry of licenses and baselines, and the rules that follow from it."""
