"""The HTML of the report; light or dark as the reader's system says."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>KeyRe-ID: $title</title>
<style>
:root { color-scheme: light dark; --ink: #24292f; --soft: #626a73; --paper: #ffffff; --card: #f5f6f8; --line: #d8dce1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa3ad; --paper: #16191d; --card: #20242a; --line: #363c44; }
}
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
p { max-width: 48rem; } .soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem 1.2rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; }
td { overflow-wrap: anywhere; }
figure { margin: 0 0 1.2rem; } figcaption { color: var(--soft); font-size: .85rem; margin-bottom: .25rem; }
img { max-width: 100%; border-radius: .4rem; }
.green { color: #1a9850; } .red { color: #d73027; } .blue { color: #4575b4; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--soft); }
</style>
</head>
<body>
<h1>$title</h1>
<p class="soft">Person re-identification of tracklets, identity split: $split. $summary</p>
<div class="cards">
<div class="card"><b>$rank1 %</b><span>Rank-1, protocol $protocol</span></div>
<div class="card"><b>$mean_precision %</b><span>mAP, protocol $protocol</span></div>
<div class="card"><b>$queries</b><span>queries with a match under another camera</span></div>
</div>

<h2>Results</h2>
<p class="soft">In percent. Rank-k: queries with a match among their k nearest. mAP: how early all matches come.
mINP: how early the last one comes. Numbers of another protocol cannot be compared with these.</p>
<div class="wide">$metrics</div>

<h2>CMC</h2>
$cmc

<h2>Rankings</h2>
<p class="soft">The query, in a <b class="blue">blue</b> frame, and its nearest gallery tracklets from left to right:
<b class="green">green</b> is the same person, <b class="red">red</b> is somebody else; d is the squared distance, AP
the query's average precision. Tracklets of the query's person under the query's own camera are left out, as the
protocol says. Failures come first; queries are chosen by their average precision, from worst to best.</p>
<div class="wide">
$rankings
</div>

<h2>Dataset</h2>
<div class="wide">$counts</div>

<h2>How it was made</h2>
<div class="wide">$facts</div>
<details><summary>configuration of the network</summary>
<div class="wide">$model</div>
</details>
</body>
</html>
""")
