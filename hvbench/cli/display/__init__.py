"""What a sweep shows while it runs: live on a terminal, lines elsewhere, JSON for programs."""
