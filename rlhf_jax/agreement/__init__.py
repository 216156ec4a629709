"""How far annotators agree, whom to look at, and what they say together."""
