"""The space ``blocks``: any model that can be traced; what its units may do is found."""
