"""Real runs held against the model: the processes of a run write down what they do, and a program replays that.

Read `events` (what is written down), then `table` (what each step must be like, and which rule of `tests/model` says so). `replay`
walks through the events of each process; `truth` is what all of them together tell of the log; `recorder` and the `hooks` do the
writing, in the process under test, from outside of the code under test.
`python -m traces --help`, with `tests` on the path.
"""
