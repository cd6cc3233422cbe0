"""The jobs of a scheduler: when they run, how they ran, and what their repositories hold.

`agenda` and `ledger` decide, `runner` runs the commands of a job, `scanner` looks at repositories.
"""
