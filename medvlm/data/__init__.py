"""From articles and public sets to one parquet form: every source yields `Sample`, `write` stores it."""
