"""What can be told of a prepared data set: what it is, its statistics, a look at it, what changed, what is broken."""
