"""What the commands that launch ranks do between the command line and the output: prepare, launch, show the result."""
