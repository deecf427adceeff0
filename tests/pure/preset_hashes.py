"""The spec hashes of every run of every preset, in order, as one digest each: runs stored before must stay evidence."""

from __future__ import annotations

# preset → number of runs, SHA-256 of their spec hashes, one a line
HASHES = {
    "gradient-chain": (10, "1b0282265b4f6475e4883067f24f86428a6f71c3d080d98ce8676be540b400c0"),
    "image-self-attention": (15, "bb463c037860239f68df45da4a759d757b6af8e929c69f4606fb9c88eb4f15c4"),
    "learn-qkv": (56, "de17e70d096d712193eed20c252e48d81037d4964a05ac52fd28509cb902a10d"),
    "sam3-lite": (5, "4b0db73999f4fc92c0fc2c854b0fd46f28ee68f621deb4ac5d71639786daa54a"),
    "sam3-lite-digits": (1, "b955fbf842d332a9d1587eb80c98daf0389533fdcbf3c75b62e4d31d42a8ef5c"),
    "self-vs-cross": (25, "1c9c6acadf0059a4b1769fab5cde8c0351925a72849cc8090b4000494ec0635d"),
    "text-finds-object": (5, "4b0db73999f4fc92c0fc2c854b0fd46f28ee68f621deb4ac5d71639786daa54a"),
    "token-roles": (40, "00877b071423ae9b425109414c673ade426010150cda3757fa580d32314ab95a"),
    "what-qkv-learn": (10, "ca944918b2fcf300b16a1d83331ff8edc5bdfad93c184c2ae67c2d5c0fd70dc7"),
    "why-q": (152, "cabbf17365435eaa9ec838f2f46c1698db32f44f890069d2c36b681fa9a92921"),
}

# The seeds that the presets had when these digests were taken: today the pilot's (experiments/verdicts/rules.py).
_TOKENS, _SCENES = list(range(8)), list(range(5))
SEEDS = {name: _TOKENS if name in {"learn-qkv", "token-roles", "why-q"} else _SCENES for name in HASHES}
SEEDS["sam3-lite-digits"] = [0]
