"""A side that repeats what it is asked, after a word that is no answer."""

import os
import sys

from benchmarks.sides import answers

answer = answers()
answer({"pid": os.getpid()})
for line in sys.stdin:
    print("not an answer")
    answer({"heard": line.strip()})
