"""Proof that revisions can be restored. Commands import `Trial` from `drill`; `repository.drills` keeps the results."""
