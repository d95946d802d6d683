"""For every test and doctest: Keras asks for its backend when it is imported, and has one default
that is not installed here.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
