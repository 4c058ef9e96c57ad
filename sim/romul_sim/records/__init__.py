"""Records of real runs, which are decided again."""
