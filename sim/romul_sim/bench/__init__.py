"""`romul bench`: runs of optimizers on real training problems, kept and compared."""
