"""Files: atomic writes, bounded reads of untrusted files, the user's cache, what git says of a folder. Imports only the standard library."""
