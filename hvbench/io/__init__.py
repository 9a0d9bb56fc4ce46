"""Files: atomic writes, bounded reads of untrusted files, the user's cache. Imports only the standard library."""
