"""Several prepared data sets as one: ids unique, nothing on two sides of the split, credits and rejects carried along.

The parts are read by a source like any other, so a merged set is prepared as every set is: resumable, in parallel, with
near duplicates found across the parts, its own card, sheet and manifest.
"""
