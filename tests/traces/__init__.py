"""Real runs held against the model: the processes of a run write down what they do, and a program replays that.

Read `events` (what is written down), then `table` (what each step must be like, and which rule of `tests/model` says so).
`replay` walks through the events of each process; `standing` is where it stands there, in the model's terms; `truth` is what all
processes together tell of the log. `recording` does the writing, in the process under test, from outside of the code under test.
`python -m traces --help`, with `tests` on the path.
"""
