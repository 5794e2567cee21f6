"""The offline phone carrier: a call with a mouth, an ear and a clock."""
