"""The style sheet of a report's page. It names no address and no font that is not on the reader's machine."""

from __future__ import annotations

from typing import Final

# Text on its ground has at least 4.5:1 in both themes (WCAG 2.2, 1.4.3).
STYLE: Final = """
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1f2328;--quiet:#5c646d;--line:#e2e4e8;--shade:#f3f4f6;
--good:#1a7f43;--bad:#c2312b;--middle:#8f5d00;--link:#0b61c4;
--p1:#5b8def;--p2:#e0a030;--p3:#3aa675;--p4:#9a77cf;--p5:#c96f4a;--p6:#8a929b}
@media (prefers-color-scheme:dark){:root{--bg:#16181b;--card:#1d2024;--ink:#e4e7ea;--quiet:#a0a8b0;--line:#33383e;--shade:#24282d;
--good:#5ccb8a;--bad:#ff8078;--middle:#e3ae4f;--link:#79b4ff;
--p1:#5b8def;--p2:#d69b35;--p3:#41b380;--p4:#a587d8;--p5:#d07e5c;--p6:#79818a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:980px;margin:0 auto;padding:32px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:10px 0 4px;font-weight:650}
h2{font-size:16px;margin:0 0 10px;font-weight:650}
h3{font-size:14px;margin:16px 0 6px;font-weight:650}
h4{font-size:13px;margin:12px 0 6px;font-weight:650}
p{margin:6px 0}
ul{margin:6px 0;padding-left:20px}
a{color:var(--link)}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--shade);padding:10px 12px;border-radius:6px;white-space:pre-wrap;margin:8px 0}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:14px 0}
.good{color:var(--good)}.bad{color:var(--bad)}.middle{color:var(--middle)}.quiet{color:var(--quiet)}
.badge{display:inline-block;border:1px solid currentColor;border-radius:12px;padding:1px 10px;margin-right:6px;font-size:13px;font-weight:600;
white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:10px;margin:16px 0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px}
.tiles span{display:block;color:var(--quiet);font-size:12.5px}
.tiles b{font-size:16px;font-weight:650;font-variant-numeric:tabular-nums}
.box{border-left:3px solid currentColor;padding:2px 0 2px 14px;margin:6px 0}
.box>*{color:var(--ink)}.box .quiet{color:var(--quiet)}.box b{color:inherit}
.cure{color:var(--ink)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th{text-align:left;color:var(--quiet);font-weight:600;font-size:12.5px;padding:4px 12px 6px 0;white-space:nowrap}
td{padding:6px 12px 6px 0;border-top:1px solid var(--line);vertical-align:top}
tbody tr:first-child td{border-top-color:var(--line)}
table.small{max-width:560px}
.figure{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;width:1%}
.bar{display:flex;height:14px;border-radius:7px;overflow:hidden;background:var(--shade);margin:4px 0 10px}
.bar i{display:block;height:100%}
i.key{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.p-requesting{background:var(--p1)}.p-retrying{background:var(--p5)}.p-thinking{background:var(--p4)}.p-writing{background:var(--p3)}
.p-asking{background:var(--p5)}.p-tool{background:var(--p2)}.p-starting,.p-queued{background:var(--p6)}.p-waiting,.p-paused,.p-stopping,.p-ended{background:var(--quiet)}
.spans .span{display:grid;grid-template-columns:minmax(70px,160px) 1fr;gap:12px;align-items:center;font-size:13px;padding:2px 0}
.spans .span>span{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.spans .span>div{background:var(--shade);border-radius:4px;height:12px}
.spans i{display:block;height:12px;min-width:3px;border-radius:4px;background:currentColor}
.scale{display:flex;justify-content:space-between;margin-left:calc(min(160px,30%) + 12px);font-size:12px}
.claim{margin:10px 0 0;padding:2px 16px;border-left:3px solid var(--line)}
.claim table{width:auto;margin:8px 0}.claim td,.claim th{border:1px solid var(--line);padding:3px 10px}
.claim h1,.claim h2,.claim h3{font-size:15px;margin:12px 0 4px}
details summary{cursor:pointer;color:var(--quiet);margin-top:10px}
details.run{border-top:1px solid var(--line);padding:6px 0}
details.run:first-of-type{border-top:0}
details.run>summary{color:var(--ink);margin:4px 0}
details.run section{border:0;padding:8px 0;margin:8px 0;background:none}
footer{color:var(--quiet);font-size:12.5px;margin-top:18px}
@media print{body{background:none}section,.tiles div{break-inside:avoid}main{max-width:none;padding:0}}
"""
