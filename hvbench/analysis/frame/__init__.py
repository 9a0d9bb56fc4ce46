"""Records -> DataFrames: one row a launch, its columns and what each of them means."""
