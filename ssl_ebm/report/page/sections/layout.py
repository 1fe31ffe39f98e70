"""Tables, legends and rows of pictures that every section is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby

from ssl_ebm.report.looks import DISTINCT, Look
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.sheet import Sheet, SheetCell, SheetEntry, SheetHead


def panels(groups: Sequence[Group], draw: Callable[[Group], tuple[str, str]], style: str = "") -> str:
    """One figure a group: a line of text, and a picture; groups whose picture is empty are left out."""
    figures = []
    for group in groups:
        text, picture = draw(group)
        if picture:
            line = f'<span class="muted">{text}</span>' if text else ""
            caption = f"<figcaption>{group.look.swatch()}<strong>{escape(group.name)}</strong> {line}</figcaption>"
            figures.append(f"<figure>{caption}{picture}</figure>")
    kind = " ".join(filter(None, ["panels", style, "dense" if many(groups) and not style else ""]))
    return f'<div class="{kind}">{"".join(figures)}</div>' if figures else ""


def many(groups: Sequence[Group]) -> bool:
    """Whether colours stand for families: curves are named at their ends then."""
    return len(groups) > DISTINCT


def legend(groups: Sequence[Group]) -> str:
    """Looks and names; of many, which have their names in the charts, families and their colours; of one, nothing."""
    if len(groups) == 1:
        return ""
    named = {group.family: Look(group.look.colour) for group in groups} if many(groups) else {}
    named = named or {group.name: group.look for group in groups}
    items = "".join(f"<li>{look.swatch()}{escape(name)}</li>" for name, look in named.items())
    return f'<ul class="legend">{items}</ul>'


def folded(title: str, content: str, *, fold: bool = True) -> str:
    """Content below a heading, folded away where there is much of it."""
    if not content:
        return ""
    if not fold:
        return f"<h3>{title}</h3>{content}"
    return f"<details><summary>{title}</summary>{content}</details>"


def scroll(content: str, label: str) -> str:
    """A place that scrolls by itself, also from the keyboard, where content is wider than the screen."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'


def shade(value: float, low: float, high: float) -> str:
    """Style of a cell by its value: the colour's opacity, on which text stays legible."""
    return f"--v:{4 + 46 * (value - low) / max(high - low, 1e-9):.0f}%"


def table(sheet: Sheet) -> str:
    """A table that a click on a heading sorts, with its footnotes."""
    groups = ""
    for name, members in groupby(sheet.heads, key=lambda head: head.group):
        keys = [head.key for head in members]
        alone = "".join(f'<td class="{escape(key)}"></td>' for key in keys)
        groups += f'<th class="group" colspan="{len(keys)}" scope="colgroup">{escape(name)}</th>' if name else alone
    above = f"<tr><td></td>{groups}</tr>" if any(head.group for head in sheet.heads) else ""
    heads = "".join(
        f'<th scope="col" class="{_kind(head)}" data-column="{i}">{escape(head.title)}</th>'
        for i, head in enumerate(sheet.heads, 1)
    )
    trained = "".join(_line(entry, sheet.heads) for entry in sheet.entries if not entry.baseline)
    untrained = "".join(_line(entry, sheet.heads) for entry in sheet.entries if entry.baseline)
    below = f'<tbody class="baselines">{untrained}</tbody>' if untrained else ""
    heads = f'<tr><th scope="col" class="text">{escape(sheet.first)}</th>{heads}</tr>'
    whole = f'<table class="{_size(sheet)}"><thead>{above}{heads}</thead><tbody>{trained}</tbody>{below}</table>'
    footnotes = "".join(f"<li>{escape(note)}</li>" for note in sheet.notes)
    return scroll(whole, sheet.title) + (f'<ul class="notes">{footnotes}</ul>' if footnotes else "")


def _size(sheet: Sheet) -> str:
    """CSS classes by how much there is to show."""
    bounds = any(cell.bound for entry in sheet.entries for cell in entry.cells)
    return "results" + (" few" if len(sheet.heads) <= 6 else " full" if bounds and len(sheet.heads) > 11 else "")


def _kind(head: SheetHead) -> str:
    return escape(f"{head.key} text" if head.text else head.key)


def _line(entry: SheetEntry, heads: Sequence[SheetHead]) -> str:
    name, marks = escape(entry.name), f"<sup>{''.join(entry.marks)}</sup>" if entry.marks else ""
    cells = "".join(_cell(cell, head) for cell, head in zip(entry.cells, heads, strict=True))
    swatch = entry.look.swatch() if entry.look else ""
    return f'<tr><th scope="row" title="{name}">{swatch}{name}{marks}</th>{cells}</tr>'


def _cell(cell: SheetCell, head: SheetHead) -> str:
    kind = _kind(head) + (" best" if cell.mark else "")
    data = "" if cell.value is None else escape(str(cell.value))
    tie = '<span class="tie" title="tied with the best">=</span>' if cell.mark == "tied" else ""
    bound = f"<small>{escape(cell.bound)}</small>" if cell.bound else ""
    return f'<td class="{kind}" data-value="{data}">{tie}{escape(cell.text)}{bound}</td>'
