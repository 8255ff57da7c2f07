"""Pages for people: what a run did, scored and cost, and what may be done with it."""
