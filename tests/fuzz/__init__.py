"""Every parser of text from outside, under inputs that nobody honest sends.

`targets` is the table; `budget` says what an input may cost. The tests beside
them use it with hypothesis, `make fuzz` with a search that is led by coverage
(`guided`).
"""
