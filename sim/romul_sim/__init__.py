"""The simulator: the real actor and the real workers under virtual time, on machines that churn."""
