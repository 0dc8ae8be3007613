"""What an experiment will cost before it starts, and settings that suit a teacher and a time."""
