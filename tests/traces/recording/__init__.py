"""How the processes of a run come to write down what they do: hooks around the methods of the real classes, in the process under
test alone. Nothing here judges."""
