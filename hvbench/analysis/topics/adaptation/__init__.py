"""Ways to adapt a model: what each trains, sends and keeps, how far it gets, and which of them no other beats."""
