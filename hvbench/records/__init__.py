"""What a launch leaves behind: its record, the run's folder, and the environment it was measured in."""
