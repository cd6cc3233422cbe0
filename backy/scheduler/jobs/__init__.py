"""The jobs of a scheduler: when they run, how they ran, and what their repositories hold.

`agenda` decides, `ledger` has all jobs and looks at their repositories, `runner` runs the commands of a job.
"""
