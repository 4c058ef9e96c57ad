"""What people and programs see of a population: snapshots, explanations, pictures, exports."""
