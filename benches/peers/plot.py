"""Draws the figures of `benches/peers/run` as SVG: a panel for each figure, a bar for
each server. Its colors follow the reader's theme."""

from xml.sax.saxutils import escape

from figures import medians

WIDTH = 860
LABELS = 150  # the names of the servers
NUMBERS = 190  # the values behind the bars
BAR, STEP = 16, 24
HEAD, PANEL_HEAD, PANEL_FOOT, FOOT = 30, 30, 14, 44

STYLE = """
    text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328 }
    .title { font-weight: 600 }
    .note, .ratio { fill: #59636e; font-size: 12px }
    .ours { fill: #0969da }
    .theirs { fill: #9aa4af }
    @media (prefers-color-scheme: dark) {
        text { fill: #f0f6fc }
        .note, .ratio { fill: #9198a1 }
        .ours { fill: #4493f8 }
        .theirs { fill: #59636e }
    }
"""


def draw(results):
    """Returns the plot."""
    servers = results["servers"]
    parts, y = [], HEAD
    for name, unit, of_servers in medians(results):
        parts.append(text(0, y, f"{name}, {unit}", "title"))
        y += PANEL_HEAD - BAR
        longest = max(value for value, _ in of_servers)
        for server, (value, ratio) in zip(servers, of_servers):
            ours = server is servers[0]
            length = max(1.5, value / longest * (WIDTH - LABELS - NUMBERS))
            middle = y + BAR - 4
            parts.append(text(0, middle, server["title"]))
            parts.append(
                f'<rect class="{"ours" if ours else "theirs"}" x="{LABELS}" y="{y}" '
                f'width="{length:.1f}" height="{BAR}" rx="2"/>'
            )
            shown = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
            times = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
            times = "" if ours else f'<tspan class="ratio" dx="8">{times} ×</tspan>'
            parts.append(f'<text x="{LABELS + length + 8:.1f}" y="{middle}">{shown}{times}</text>')
            y += STEP
        y += PANEL_FOOT + BAR
    notes = [
        f"{results['clients']:,} clients and {results['events_per_s']} events of "
        f"{results['event_bytes']} bytes a second; memory with {results['idle_clients']:,} idle "
        f"clients. Shorter is better.",
        f"Medians of {results['rounds']} rounds, each server on one core, "
        f"{results['date']}: {results['machine']}.",
    ]
    for note in notes:
        parts.append(text(0, y, note, "note"))
        y += 18
    body = "\n".join(f"    {part}" for part in parts)
    title = "Cost of pushwheel and of other servers of event streams"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 0 {WIDTH + 24} {y}" '
        f'width="{WIDTH + 24}" height="{y}" role="img" aria-label="{title}">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def text(x, y, content, kind=None):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{kind}>{escape(content)}</text>'
