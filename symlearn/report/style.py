"""How a page looks: on a wide screen, on a phone, on a dark ground, on paper."""

_LIGHT = """color-scheme: light;
  --ground: #f6f8fa; --card: #ffffff; --ink: #1f2328; --soft: #59636e;
  --faint: #d3d9df; --bar: #cfe3f1; --present: #dff0e4; --present-ink: #14532d;
  --undecided: #fff1cc; --undecided-ink: #6b4a00; --off: #e8ebee;"""

_DARK = """color-scheme: dark;
  --ground: #0d1117; --card: #161b22; --ink: #e6edf3; --soft: #9da7b3;
  --faint: #3d444d; --bar: #1f3a52; --present: #12361f; --present-ink: #9be0b0;
  --undecided: #3d2f00; --undecided-ink: #f2cc60; --off: #2b3138;"""

STYLE = f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%; }}
main {{ max-width: 76rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1rem; margin: 1rem 0 .4rem; }}
section > p {{ max-width: 48rem; margin: .6rem 0; }}
p.note {{ color: var(--soft); font-size: .88rem; }}
.card, figure {{ background: var(--card); border: 1px solid var(--faint); border-radius: 8px;
  padding: 1rem; margin: 0 0 1rem; }}
.facts {{ display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; }}
.facts dt {{ color: var(--soft); font-size: .8rem; }}
.facts dd {{ margin: 0; font-weight: 600; overflow-wrap: anywhere; }}
.figures {{ display: grid; gap: 1rem; margin: 0 0 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }}
figure {{ margin: 0; padding: .8rem; }}
figure svg {{ display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto; }}
figure svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
figure svg image {{ image-rendering: pixelated; }}
table {{ border-collapse: collapse; width: 100%; font-size: .86rem;
  font-variant-numeric: tabular-nums; }}
div.card {{ overflow-x: auto; }}
th, td {{ padding: .3rem .5rem; text-align: left; }}
th {{ color: var(--soft); vertical-align: bottom; border-bottom: 2px solid var(--faint); }}
td {{ overflow-wrap: break-word; }}
td.number, td.share, .badge {{ white-space: nowrap; }}
td.list {{ overflow-wrap: anywhere; min-width: 16rem; }}
.number, .share {{ text-align: right; }}
tr.first + tr.first td, tr:not(.first) + tr.first td {{ border-top: 1px solid var(--faint); }}
tr.off td:not(.of-layer) {{ color: var(--soft); }}
td.share {{ min-width: 6rem; background: linear-gradient(to right, var(--bar) var(--part),
  transparent var(--part)) content-box no-repeat; }}
td.name {{ font-family: ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }}
.badge {{ border-radius: 1rem; padding: .1rem .6rem; font-weight: 600; background: var(--off); }}
.badge.present {{ background: var(--present); color: var(--present-ink); }}
.badge.undecided {{ background: var(--undecided); color: var(--undecided-ink); }}
ul.warnings {{ background: var(--undecided); color: var(--undecided-ink); border-radius: 8px;
  margin: 0 0 1rem; padding: .8rem 1rem .8rem 2.2rem; overflow-wrap: anywhere; }}
.glossary {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem;
  font-size: .88rem; }}
.glossary dt {{ font-weight: 600; }}
.glossary dd {{ margin: 0; color: var(--soft); overflow-wrap: anywhere; }}
@media screen and (max-width: 48rem) {{
  main {{ padding: 1rem .75rem 3rem; }}
  thead {{ display: none; }}
  table, tbody, tr, td {{ display: block; width: auto; }}
  tr {{ padding: .5rem 0; border-top: 1px solid var(--faint); }}
  tbody tr:first-child {{ border-top: 0; padding-top: 0; }}
  tr.first + tr.first td, tr:not(.first) + tr.first td {{ border-top: 0; }}
  tr.first {{ border-top: 2px solid var(--soft); }}
  td {{ display: flex; justify-content: space-between; gap: 1rem; padding: .1rem .2rem;
    text-align: right; }}
  td, td.share, td.list {{ min-width: 0; overflow-wrap: anywhere; }}
  td::before {{ content: attr(data-title); color: var(--soft); text-align: left;
    font-family: system-ui, sans-serif; flex: none; max-width: 55%; }}
  td.empty {{ display: none; }}
  .glossary {{ display: block; }}
  .glossary dd {{ margin: 0 0 .5rem; }}
}}
@media print {{
  :root {{ {_LIGHT} --ground: #ffffff; }}
  body {{ font-size: 10pt; }}
  main {{ max-width: none; padding: 0; }}
  .card, figure {{ border: 0; padding: 0; }}
  div.card {{ overflow-x: visible; }}
  .figures {{ grid-template-columns: 1fr 1fr; }}
  figure, tr, dl > div {{ break-inside: avoid; }}
  h2 {{ break-after: avoid; }}
  table {{ font-size: 7pt; }}
  th, td {{ padding: .15rem .25rem; }}
  td.share, td.list {{ min-width: 0; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
"""The style sheet of a page."""
