"""What the commands print: Go templates, listings, inspect documents, units and progress lines.

Each module stands alone and imports next to nothing, so that a command pays only for what it shows:

* ``gotemplate``      compile and render what users type after ``--format``; behind it ``lexer``, ``parser``,
  ``nodes``, ``evaluator`` and ``functions``, and Go's view of values in ``govalues``, ``printf``, ``gojson``,
  ``dockp.golang``
* ``printer``         listings (``docker ps`` and friends): tables, JSON lines, templates, quiet mode
* ``inspect_output``  ``inspect`` documents, whole or through a template
* ``units``           sizes, durations and points in time, as text and back
* ``progress``        one line per layer or step, in a terminal or in a pipe
"""
