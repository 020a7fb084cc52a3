"""The legend of shapes: one letter, one meaning, in every docstring and comment of the project.

    B  examples of a batch            S  sequences of a batch (an example has one or more: windows)
    T  tokens of a batch, end to end  L  longest sequence, in tokens
    U  loss units of a batch          C  classes
    D  width of a hidden state        F  width of the feed-forward layer
    H  heads                          K  width of a head
    V  vocabulary                     R  rank

A shape is written as letters in order: "T D" is a matrix with a row of width D for each token.
"""
