def brief(x):
    return type(x).__name__
