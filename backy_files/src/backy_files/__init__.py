"""Single files of guests: `backy files`. Only `backy_drills` imports from it, and nobody else."""
