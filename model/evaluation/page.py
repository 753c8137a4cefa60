"""The HTML of the report."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>KeyRe-ID: $title</title>
<style>$style
.green { color: #1a9850; } .red { color: #d73027; } .blue { color: #4575b4; }
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
