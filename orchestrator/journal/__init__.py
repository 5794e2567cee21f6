"""What must not be lost: the entries of every call, who may write them, how they are committed, and how a call is rebuilt."""
