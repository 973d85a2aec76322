"""Write docs/indicators.md and its pictures from what the indicators say about themselves."""

from pathlib import Path

from pipeline.indicators import ALL
from pipeline.reference.page import PICTURES, page
from pipeline.reference.pictures import draw

DOCS = Path(__file__).resolve().parent.parent / "docs"

if __name__ == "__main__":
    (DOCS / "indicators.md").write_text(page(), encoding="utf-8")
    folder = DOCS / PICTURES
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.svg"):
        path.unlink()
    for one in ALL:
        draw(one, folder / f"{one.name}.svg")
    print(f"{len(ALL)} indicators: {DOCS / 'indicators.md'}, {folder}")
