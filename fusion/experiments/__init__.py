"""Many trainings: seeds, variants, tables, searches, and the folders that they leave."""
