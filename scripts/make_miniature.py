"""Make a miniature entailment task and a small BERT, on which all five stages run on a CPU in a minute or two.

    python scripts/make_miniature.py --dir quickstart

Writes <dir>/datasets/rte/{train,dev,test}.tsv, in the layout of RTE, and <dir>/bert, a Hugging Face checkpoint with
random weights and its own vocabulary. The same seed writes the same bytes.

A row: "Anna remembers fresh bread, awful waiters and dark beds." entails "The food was good.", and does not entail
"Anna liked the staff." The hypothesis is about one of the things in the premise, and the label says whether its
adjective was a good one. Guessing from the tone of the whole premise gives about 80 %; the rest takes matching thing
and adjective. Most adjectives fit one thing only (fresh), some fit all (awful) and have to be found by their position:
those few are what a short training does not learn.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel
from transformers.utils.logging import disable_progress_bar

GUESTS = ["anna", "boris", "clara", "dario", "elena", "felix"]
VERBS = ["remembers", "mentions", "describes"]
NOUNS = {
    "food": ["bread", "soup", "fish", "cake"],
    "staff": ["waiters", "cooks", "porters", "drivers"],
    "room": ["beds", "baths", "windows", "carpets"],
    "town": ["beaches", "markets", "harbours", "parks"],
}
# good and bad adjectives that fit each of them, and that fit any of them
ADJECTIVES = {
    "food": (["tasty", "fresh", "crisp", "sweet"], ["stale", "burnt", "salty", "bitter"]),
    "staff": (["kind", "polite", "quick", "helpful"], ["rude", "slow", "lazy", "grumpy"]),
    "room": (["clean", "bright", "cosy", "warm"], ["dirty", "dark", "shabby", "damp"]),
    "town": (["pretty", "calm", "green", "sunny"], ["ugly", "noisy", "crowded", "grey"]),
    "any": (["great", "lovely", "fine", "superb"], ["awful", "poor", "dull", "grim"]),
}
OTHERS = ["and", "the", "was", "good", "liked", ",", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
AGREEING = 0.75  # share of the adjectives that agree with the tone of the whole sentence
GENERAL = 0.1  # share of the adjectives that fit anything
HIDDEN_SIZE = 64

Row = tuple[str, str, str]  # premise, hypothesis, label


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dir", default="quickstart", help="folder to write to (default quickstart)")
    add("--seed", type=int, default=776, help="of sentences and weights (default 776)")
    add("--train", type=int, default=4000, help="training rows (default 4000)")
    add("--dev", type=int, default=500, help="dev rows (default 500)")
    add("--test", type=int, default=200, help="test rows, without labels (default 200)")
    return parser.parse_args(argv)


def draw_row(rng: random.Random) -> Row:
    """Draw a premise about two or three things, a hypothesis about one of them, and the label."""
    guest = rng.choice(GUESTS)
    tone = rng.random() < 0.5  # whether most of the adjectives are good ones
    things = rng.sample(list(NOUNS), rng.choice((2, 3)))
    is_good = {thing: (rng.random() < AGREEING) == tone for thing in things}
    phrases = []
    for thing in things:
        good, bad = ADJECTIVES["any" if rng.random() < GENERAL else thing]
        phrases.append(f"{rng.choice(good if is_good[thing] else bad)} {rng.choice(NOUNS[thing])}")
    premise = f"{guest} {rng.choice(VERBS)} {', '.join(phrases[:-1])} and {phrases[-1]}."
    thing = rng.choice(things)
    hypothesis = rng.choice((f"the {thing} was good.", f"{guest} liked the {thing}."))
    label = "entailment" if is_good[thing] else "not_entailment"
    return premise.capitalize(), hypothesis.capitalize(), label


def write_task(folder: Path, sizes: dict[str, int], rng: random.Random) -> None:
    """Write a TSV file for each split; no pair of sentences occurs twice."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = set()
    for split, size in sizes.items():
        lines = ["index\tsentence1\tsentence2" + ("" if split == "test" else "\tlabel")]
        while len(lines) <= size:
            premise, hypothesis, label = draw_row(rng)
            if (premise, hypothesis) not in seen:
                seen.add((premise, hypothesis))
                columns = [str(len(lines) - 1), premise, hypothesis, label]
                lines.append("\t".join(columns[:-1] if split == "test" else columns))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bert(folder: Path, seed: int) -> None:
    """Write an untrained BERT of 4 layers with 4 heads and 256 neurons each, and its tokenizer."""
    phrases = [*NOUNS.values(), *(words for pair in ADJECTIVES.values() for words in pair)]
    words = sorted({*GUESTS, *VERBS, *NOUNS, *OTHERS, *(word for phrase in phrases for word in phrase)})
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(words),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN_SIZE,
        max_position_embeddings=128,
        # with the usual small initial weights, or dropout, layers this narrow do not learn within minutes
        initializer_range=HIDDEN_SIZE**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(seed)
    disable_progress_bar()
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 128}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    folder = Path(args.dir)
    sizes = {"train": args.train, "dev": args.dev, "test": args.test}
    write_task(folder / "datasets" / "rte", sizes, random.Random(args.seed))
    write_bert(folder / "bert", args.seed)
    print(f"{folder}/datasets/rte: {args.train} + {args.dev} + {args.test} rows; {folder}/bert: a BERT to start from")


if __name__ == "__main__":
    main()
