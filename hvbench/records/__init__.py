"""Results of launches: the record of one launch, the folder of a run, and the environment that was measured in."""
