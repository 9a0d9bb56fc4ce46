"""What each further rank brings."""
