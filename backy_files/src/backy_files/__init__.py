"""Single files of guests: `backy files`. Nothing of it is for import by others."""
