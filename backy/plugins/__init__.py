"""Finding, loading and calling plugins; a broken one harms only the jobs that use it."""
