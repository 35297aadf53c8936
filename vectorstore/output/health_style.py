"""The style sheet of the health page: light, dark by the reader's preference, and A4 paper, which is always light."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light;
  --page: #f4f6f8; --card: #ffffff; --ink: #18212c; --soft: #525d6a; --line: #d5dbe2; --track: #e3e8ee;
  --bar: #2c6cb0; --second: #b0540a; --mark: #eef2f6;
  --fail: #b3211a; --warn: #8a5800; --info: #215f9e; --pass: #1c7339; --on: #ffffff;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --page: #10151b; --card: #19202a; --ink: #e7ecf2; --soft: #a8b3c0; --line: #313c49; --track: #2b3542;
    --bar: #6ea8e6; --second: #f0a35e; --mark: #232c38;
    --fail: #ff8d83; --warn: #f2c15c; --info: #8fbdf5; --pass: #83d39d; --on: #10151b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 40px; }
h1 { font-size: 15px; font-weight: 600; margin: 0; color: var(--soft); }
h2 { font-size: 19px; line-height: 1.3; margin: 36px 0 12px; break-after: avoid; }
h3 { font-size: 16px; line-height: 1.4; margin: 0; font-weight: 600; }
p { margin: 0 0 8px; }
code { font: 0.88em/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code, .name { overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); }
figcaption { font-size: 13.5px; margin-top: 8px; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 0 0 14px;
}
.card > p:last-child { margin: 0; }
figure.card { break-inside: avoid; }
figure h3 { margin-bottom: 10px; }
svg { display: block; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .strong { fill: var(--ink); font-weight: 600; }
.chart { width: 100%; height: auto; }
.full .chart { min-width: 620px; }
.grid { stroke: var(--line); stroke-width: 1; }
.first { stroke: var(--bar); fill: none; stroke-width: 2.5; }
.second { stroke: var(--second); fill: none; stroke-width: 2.5; stroke-dasharray: 2 5; stroke-linecap: round; }
.dot-first { fill: var(--bar); } .dot-second { fill: var(--second); }
.fill { fill: var(--bar); } .track { fill: var(--track); }
.fill-fail { fill: var(--fail); } .fill-warn { fill: var(--warn); } .fill-info { fill: var(--info); }
.none { stroke: var(--soft); stroke-width: 1.5; }

.verdict { display: flex; gap: 20px; align-items: center; border-left-width: 10px; padding: 22px 24px; }
.verdict svg { flex: none; width: 60px; height: 60px; }
.verdict p { margin: 2px 0 0; }
.verdict .word { font-size: 30px; line-height: 1.15; font-weight: 700; }
.fail { border-left-color: var(--fail); } .warn { border-left-color: var(--warn); }
.info { border-left-color: var(--info); } .pass { border-left-color: var(--pass); }
.fail > .icon, .fail .word, .t-fail { color: var(--fail); } .warn > .icon, .warn .word, .t-warn { color: var(--warn); }
.info > .icon, .info .word, .t-info { color: var(--info); } .pass > .icon, .pass .word, .t-pass { color: var(--pass); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; }
.tiles { list-style: none; padding: 0; margin: 0 0 14px; }
.tiles li { margin: 0; padding: 12px 16px; }
.tiles b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.sign { white-space: nowrap; }
.sign .icon { display: inline-block; width: 1em; height: 1em; vertical-align: -0.13em; margin-right: 0.4em; }
.facts { display: grid; grid-template-columns: minmax(92px, max-content) 1fr; gap: 4px 16px; margin: 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }

.fault { border-left-width: 6px; break-inside: avoid; }
.fault header { display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap; margin-bottom: 8px; }
.badge {
  display: inline-flex; align-items: center; gap: 5px; border-radius: 5px; padding: 1px 8px 1px 6px;
  font-size: 12.5px; font-weight: 700; letter-spacing: 0.03em; color: var(--on); white-space: nowrap;
}
.badge .icon { width: 13px; height: 13px; }
.b-fail { background: var(--fail); } .b-warn { background: var(--warn); }
.b-info { background: var(--info); } .b-pass { background: var(--pass); }
.fault header code { color: var(--soft); }
.fault ul { margin: 0 0 10px; padding-left: 20px; }
.ids code { background: var(--mark); border-radius: 4px; padding: 1px 5px; margin: 0 4px 4px 0; display: inline-block; }
.passed { columns: 3 250px; column-gap: 28px; list-style: none; margin: 0; padding: 0; }
.passed li { break-inside: avoid; padding: 2px 0 2px 22px; text-indent: -22px; }
.passed .icon { display: inline-block; width: 14px; height: 14px; margin-right: 8px; vertical-align: -2px; }

.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--bar); outline-offset: 3px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 13.5px; padding-bottom: 8px; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { font-weight: 600; } thead th { color: var(--soft); font-size: 13px; vertical-align: bottom; }
tbody th { font-weight: 400; } th:first-child, td.left, th.left { text-align: left; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
.coverage td { width: 1%; white-space: nowrap; } .coverage thead th { text-align: left; }
td.bar { width: 34%; min-width: 90px; padding-right: 0; } td.bar svg { width: 100%; height: 12px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 14px; }
.two > .card { margin: 0; min-width: 0; }
.two { margin-bottom: 14px; }
.pair { grid-template-columns: repeat(2, 1fr); }
.keys { display: flex; flex-wrap: wrap; gap: 0 20px; }
.key { display: inline-block; width: 34px; height: 10px; vertical-align: middle; margin: 0 6px 0 0; }
footer { margin-top: 30px; font-size: 13.5px; }

@media (max-width: 620px) {
  main { padding: 14px 12px 30px; }
  .tiles { grid-template-columns: repeat(2, 1fr); gap: 10px; } .pair { grid-template-columns: 1fr; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 8px; }
  .card { padding: 14px; } .verdict { gap: 14px; } .verdict svg { width: 44px; height: 44px; }
  .verdict .word { font-size: 24px; }
}
@page {
  size: A4; margin: 14mm 13mm 16mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt system-ui, sans-serif; color: #525d6a; }
}
@media print {
  body { background: none; font-size: 9.5pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .card { padding: 10px 14px; border-radius: 6px; }
  h2 { margin: 20px 0 8px; font-size: 13pt; } h3 { font-size: 10.5pt; }
  .soft, figcaption, caption { font-size: 8.5pt; } .badge { font-size: 8pt; }
  thead { display: table-header-group; } tr { break-inside: avoid; }
  th, td { padding: 2.5px 6px; }
  .wide { font-size: 7.5pt; } .wide thead th { font-size: 7.5pt; } .wide th, .wide td { padding: 2px 5px; }
  th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
  .scroll { overflow: visible; } .full .chart { min-width: 0; }
  .tiles, .two, .verdict { break-inside: avoid; }
}
"""
