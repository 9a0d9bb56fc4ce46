"""What one training is: a Point and its parts, and the suite file that lists many."""
