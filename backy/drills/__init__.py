"""Proof that revisions can be restored. Commands import `drill` from `drill`; `repository.drills` keeps the results."""
