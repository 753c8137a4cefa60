"""The tables of keyreid-eval, for a terminal, Markdown, LaTeX and the page; rows say what their figures belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .intervals import FEW_PERSONS, RULE_OF_30, Interval
from .measurement import HEADINGS, Measurement, Share
from .results import Summary

NAMES = ("method", "protocol", "distance", "re-ranking")
ROUGH = "†"  # before a figure that rests on few errors
Row = tuple[str | Share, ...]
LATEX = {"\\": r"\textbackslash{}", **{mark: "\\" + mark for mark in "&%$#_{}"}, "±": r"$\pm$", ROUGH: r"$^\dagger$"}


@dataclass(frozen=True)
class Table:
    """Rows of cells, with what has to be said of them.

    Attributes:
        header: one text per column.
        rows: texts, and figures as themselves.
        notes: sentences below the table.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a terminal: names to the left, numbers to the right, what they rest on below them."""
        lines = [list(self.header)]
        for row in self.rows:
            lines.append([percent(cell) if isinstance(cell, Share) else cell for cell in row])
            for below in (lambda share: span(share.interval), few_errors):
                added = [below(cell) if isinstance(cell, Share) else "" for cell in row]
                lines += [added] * any(added)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = ["  ".join(map(_pad, line, widths, range(len(line)))).rstrip() for line in lines]
        return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:], *self.notes])

    def markdown(self) -> str:
        lines = [self.header, ["---" if place < len(NAMES) else "---:" for place in range(len(self.header))]]
        lines += [[_with_span(cell) for cell in row] for row in self.rows]
        return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + [f"\n{note}" for note in self.notes])

    def latex(self) -> str:
        columns = "l" * len(NAMES) + "r" * (len(self.header) - len(NAMES))
        lines = [[_escape(_with_span(cell)).replace("–", "--") for cell in row] for row in (self.header, *self.rows)]
        body = [" & ".join(line) + r" \\" for line in lines]
        notes = [rf"\\ {_escape(note).replace('–', '--')}" for note in self.notes]
        start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        return "\n".join([start, r"\hline", body[0], r"\hline", *body[1:], r"\hline", end, *notes])

    def render(self, form: str) -> str:
        """As "text", "markdown" or "latex"."""
        return {"text": self.text, "markdown": self.markdown, "latex": self.latex}[form]()


def rank_table(results: Sequence[Measurement | Summary]) -> Table:
    """CMC, mAP and mINP in percent."""
    rows: list[Row] = [(*_names(one), *one.rank_figures.values(), one.counted) for one in results]
    notes = _notes(results, [one.rank_figures for one in results])
    return Table((*NAMES, *HEADINGS.values(), "queries"), tuple(rows), notes)


def threshold_table(results: Sequence[Measurement]) -> Table:
    """True-match rates (TMR) and detection and identification rates (DIR) in percent."""
    figures = [one.threshold_figures for one in results]
    rows: list[Row] = [(*_names(one), *found.values()) for one, found in zip(results, figures, strict=True)]
    return Table((*NAMES, *figures[0]), tuple(rows), _notes(results, figures))


def percent(figure: Share) -> str:
    """Such as "63.2", "†63.2" where few errors decide, "63.2 ± 0.4" of several runs, "-" of nothing."""
    if figure.value is None:
        return "-"
    deviation = "" if figure.deviation is None else f" ± {100 * figure.deviation:.1f}"
    return f"{ROUGH * figure.is_rough}{100 * figure.value:.1f}{deviation}"


def span(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}" if interval else ""


def few_errors(share: Share) -> str:
    """Such as "misses: 9" where fewer than 30 errors decide."""
    return f"{share.errors}: {share.num_errors}" if share.is_rough else ""


def few_persons(count: int) -> str:
    """What has to be said of an interval over so few persons; nothing of 50 or more."""
    return f"Only {count} persons: the intervals themselves are rough." if count < FEW_PERSONS else ""


def _names(one: Measurement | Summary) -> tuple[str, ...]:
    return one.method, one.protocol_label, one.comparison.distance, one.comparison.reranking_name


def _notes(results: Sequence[Measurement | Summary], figures: Sequence[dict[str, Share]]) -> tuple[str, ...]:
    counts = sorted({one.num_persons for one in results})
    notes = []
    shares = [share for found in figures for share in found.values()]
    if any(share.interval for share in shares):
        persons = " or ".join(f"{count:,}" for count in counts)
        notes.append(f"Percent, with 95 % intervals: bootstrap over {persons} persons.")
        notes += filter(None, [few_persons(counts[0])])
    if any(share.is_rough for share in shares):
        kinds = "misses, false matches or false alarms"
        notes.append(f"{ROUGH} rests on fewer than {RULE_OF_30} errors ({kinds}); how many stands with it.")
    return tuple(notes)


def _with_span(cell: str | Share) -> str:
    if not isinstance(cell, Share):
        return cell
    basis = "; ".join(filter(None, (span(cell.interval), few_errors(cell))))
    return f"{percent(cell)} ({basis})" if basis else percent(cell)


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < len(NAMES) else text.rjust(width)


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
