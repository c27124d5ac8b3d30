"""Runs in MiniLM's environment: texts as JSON on stdin to their token ids on stdout. `tokens.py TOKENIZER.json`."""

import json
import sys

LONGEST = 256
"""Tokens: the published model's `max_seq_length`."""


def main() -> None:
    """Reads, tokenizes, writes."""
    # Installed in that environment, not in the one that checks this file.
    from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]

    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    texts = json.load(sys.stdin)
    json.dump([each.ids for each in tokenizer.encode_batch(texts)], sys.stdout)


if __name__ == "__main__":
    main()
