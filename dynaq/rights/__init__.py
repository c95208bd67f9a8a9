"""People's rights over their data: erasure, a copy of everything that is held, and proof that something was erased."""
