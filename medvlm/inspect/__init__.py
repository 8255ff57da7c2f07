"""Looking inside a run's model: words nearest to its image tokens, where its answers attend, what hiding costs."""
