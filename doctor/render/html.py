"""The report as one page for a browser: nothing is loaded, and without script all of it can be read."""

from __future__ import annotations

import html
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from llm_doctor.model import EXIT_INTERRUPTED, CheckResult, Finding, Fix, Gpu, Report
from llm_doctor.render import words
from llm_doctor.units import gb, gib

SLOWEST = 12
"""Trials and disks that get a bar; of more there is the number."""
FEW = 4
"""Up to so many entries of a mapping stand in one line."""
MANY = 12
"""From so many entries on they stand in columns."""
FP16_MODELS = (("7B", 14 * 10**9), ("70B", 140 * 10**9))
"""What room is held against where --model names none: parameters, and the bytes of their weights."""
_OUTCOMES = {
    "findings": "found",
    "crashed": "crashed",
    "timeout": "timed out",
    "pass": "passed",
    "skipped": "skipped",
}
"""In the order in which they are worth reading."""
_SYMBOLS = {"pass": "\u2713", "warn": "!", "fail": "\u2715", "incomplete": "?"}
_VOID = frozenset(("meta", "input"))


class _Markup(str):
    """Text that is markup. All other text is escaped where it enters an element."""


def _tag(name: str, /, *children: str, **attributes: str | int | None) -> _Markup:
    """An element; `class_` and `aria_label` are written as attributes are, None is left out."""
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    end = "" if name in _VOID else f"</{name}>"
    return _Markup(f"<{name}{''.join(pairs)}>{_joined(*children)}{end}")


def _joined(*children: str) -> _Markup:
    return _Markup("".join(child if isinstance(child, _Markup) else _escaped(child) for child in children))


def _escaped(text: str) -> str:
    # What cannot be seen (control characters, a change of direction) is written out: a command is to be
    # what it looks like.
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
    return html.escape(text)


def render(report: Report) -> str:
    """One self-contained HTML document."""
    verdict, _, counts = words.verdict_line(report).partition(": ")
    parts = [
        ("findings", "Findings", _findings(report)),
        ("charts", "Memory, room and time", _charts(report)),
        ("checks", "Checks", _checks(report)),
        ("facts", "Facts", _facts(report)),
    ]
    sections = [
        _tag(
            "section", _tag("h2", title, id=f"{name}-title"), inner, id=name, aria_labelledby=f"{name}-title"
        )
        for name, title, inner in parts
        if inner
    ]
    links = [_tag("li", _tag("a", title, href=f"#{name}")) for name, title, inner in parts if inner]
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="color-scheme", content="light dark"),
        _tag("title", f"{verdict}: llm-doctor, {words.gpu_line(report.facts)}"),
        _tag("style", _Markup(_STYLE)),
    )
    header = _tag(
        "header",
        _tag("p", f"llm-doctor {report.doctor.version}, {report.started}", class_="muted"),
        _tag(
            "h1",
            _tag("span", _SYMBOLS[report.verdict], class_="symbol", aria_hidden="true"),
            _tag("span", f"{verdict}:", class_="verdict"),
            _tag("span", f" {counts}", class_="counts"),
        ),
        _preamble(report),
        _tag("nav", _tag("ul", *links), aria_label="Parts of this report"),
        class_=report.verdict,
    )
    body = _tag(
        "body",
        _tag("a", "Skip to the findings", href="#findings", class_="skip"),
        header,
        _tag("main", *sections),
        _tag("script", _Markup(_SCRIPT)),
    )
    return f"<!DOCTYPE html>\n{_tag('html', head, body, lang='en')}\n"


def _policy() -> str:
    """Nothing may be loaded, and no script run but ours, whatever stands in the page."""
    import base64
    import hashlib

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = f"script-src {source(_SCRIPT)}; style-src {source(_STYLE)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _preamble(report: Report) -> _Markup:
    patient = report.patient
    lines: list[str] = [", ".join([*words.stack(report), words.system(report.facts)])]
    if patient.version is None:
        lines.append(_tag("strong", f"The patient could not be examined: {report.facts.python.reason}."))
    else:
        python = _tag("code", patient.python)
        lines.append(_joined("Patient: ", python, f", Python {patient.version} (by {patient.chosen_by})"))
    lines += words.workload_lines(report)
    sentence = words.gpu_sentence(report.facts)
    if sentence:
        lines.append(sentence)
    if report.exit_code == EXIT_INTERRUPTED:
        lines.append(_tag("strong", "Interrupted: what was not reached is not-run."))
    return _joined(*(_tag("p", line) for line in lines))


# --- Findings -------------------------------------------------------------------------------------------


def _findings(report: Report) -> _Markup:
    numbers = {id(check): number for number, check in enumerate(report.checks)}
    articles, linked = [], set()
    serious = [pair for pair in words.findings(report) if pair[1].severity != "note"]
    for check, finding in serious:
        number = numbers[id(check)]
        articles.append(_finding(check, finding, None if number in linked else f"check-{number}"))
        linked.add(number)
    for number, check in enumerate(report.checks):
        notes = [finding for finding in check.findings if finding.severity == "note"]
        if notes:
            articles.append(_notes(check, notes, None if number in linked else f"check-{number}"))
    return _joined(*articles) if articles else _tag("p", "Nothing was found.")


def _finding(check: CheckResult, finding: Finding, name: str | None) -> _Markup:
    where = words.place(finding)
    said = [("where", _tag("code", where))] if where else []
    said.append(("proof", _joined(words.proof_line(finding))))
    if finding.url is not None:
        said.append(("more", _link(finding.url)))
    return _tag(
        "article",
        _heading(finding.severity, check.name),
        _tag("p", finding.message, class_="message"),
        _tag("dl", *(_tag("div", _tag("dt", key), _tag("dd", value)) for key, value in said)),
        *map(_fix, finding.fixes),
        _in_full(finding),
        class_=finding.severity,
        id=name,
    )


def _notes(check: CheckResult, notes: Sequence[Finding], name: str | None) -> _Markup:
    """The notes of a check together: a remedy and an address that they share are said once."""
    items = []
    for note in notes:
        where = words.place(note)
        place = _joined(_tag("code", where), ": ") if where else ""
        proof = _tag("span", f" ({words.proof_line(note)})", class_="muted")
        items.append(_tag("li", place, note.message, proof, _in_full(note)))
    urls = dict.fromkeys(note.url for note in notes if note.url is not None)
    return _tag(
        "article",
        _heading("note", check.name),
        _tag("ul", *items),
        *(_fix(fix) for fix in dict.fromkeys(fix for note in notes for fix in note.fixes)),
        *(_tag("p", "More: ", _link(url)) for url in urls),
        class_="note",
        id=name,
    )


def _heading(severity: str, name: str) -> _Markup:
    return _tag("h3", _tag("span", severity, class_=f"badge {severity}"), " ", name)


def _link(url: str) -> _Markup:
    if not url.startswith("https://"):  # javascript: is an address, too
        return _joined(url)
    return _tag(
        "a", url, href=url, rel="noreferrer", target="_blank"
    )  # a notebook's frame shows no other page


def _fix(fix: Fix) -> _Markup:
    caution = "" if fix.applicability == "safe" else f", {fix.applicability}"
    known = _tag("span", f" ({words.verified(fix.verified)}{caution})", class_="muted")
    preview = [_tag("pre", fix.preview, class_="copy")] if fix.preview else []
    return _tag("div", _tag("p", _tag("strong", "Fix: "), fix.title, known), *preview, class_="fix")


def _in_full(finding: Finding) -> _Markup:
    """What a finding rests on, unabridged."""
    inner: list[_Markup] = []
    case = finding.proof.case if finding.proof is not None else None
    if case is not None:
        inner.append(_fields({"case": case.combination, "status": case.status, "reason": case.reason}))
        for name, arm in (("broken", case.broken), ("fixed", case.fixed)):
            if arm is not None:
                did = {f"{name} arm": arm.outcome, "error": arm.error, **arm.measured}
                inner.append(_fields(did))
    if finding.evidence:
        inner.append(_fields(finding.evidence))
    return _tag("details", _tag("summary", "What it rests on"), *inner) if inner else _Markup()


# --- Charts: rows of text, each with a bar of its own, so that they fit a phone and a screen reader --------


def _charts(report: Report) -> _Markup:
    return _joined(*filter(None, (_gpu_chart(report), _disk_chart(report), _trial_chart(report))))


class _Part(NamedTuple):
    """A stretch of a bar, from 0 to 1."""

    look: str
    start: float
    length: float


def _bar(
    name: str, title: str, description: str, parts: Iterable[_Part], marks: Iterable[float] = ()
) -> _Markup:
    """A bar as wide as the page; all places are percentages, so no letter or line is ever stretched."""
    drawn = [
        _tag(
            "rect", class_=part.look, x=f"{part.start:.2%}", width=f"{part.length:.2%}", y=4, height=16, rx=2
        )
        for part in parts
        if part.length > 0
    ]
    lines = [_tag("line", class_="mark", x1=f"{at:.2%}", x2=f"{at:.2%}", y1=0, y2=24) for at in marks]
    return _tag(
        "svg",
        _tag("title", title, id=f"{name}-t"),
        _tag("desc", description, id=f"{name}-d"),
        *drawn,
        *lines,
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        width="100%",
        height=24,
    )


def _chart(name: str, title: str, caption: str, rows: Iterable[_Markup], *after: _Markup) -> _Markup:
    return _tag(
        "figure",
        _tag("figcaption", _tag("h3", title, id=f"{name}-chart"), _tag("p", caption, class_="muted")),
        _tag("ul", *rows),
        *after,
        aria_labelledby=f"{name}-chart",
        class_="chart",
    )


def _row(label: Sequence[str], value: Sequence[str], *bar: _Markup) -> _Markup:
    texts = _tag("div", _tag("span", *label), _tag("span", *value, class_="value"))
    return _tag("li", texts, *bar)


def _gpu_chart(report: Report) -> _Markup | None:
    gpus = report.facts.gpus.value.gpus if report.facts.gpus.value else ()
    if not any(gpu.memory_total_bytes for gpu in gpus):
        return None
    context = _measured(report, "context_bytes")
    buckets = _buckets(report)
    taken = {gpu.index: _taken(gpu, context, buckets) for gpu in gpus}
    widest = max(1, *(max(gpu.memory_total_bytes or 0, sum(taken[gpu.index].values())) for gpu in gpus))
    rows = []
    for number, gpu in enumerate(gpus):
        label = [_tag("strong", f"GPU {gpu.index}"), f" {gpu.name or ''}"]
        total = gpu.memory_total_bytes
        if total is None or gpu.memory_free_bytes is None:
            rows.append(_row(label, [gpu.problem or "its memory is not known"]))
            continue
        kinds = taken[gpu.index]
        left = total - sum(kinds.values())
        parts = [_Part("track", 0, total / widest)]
        start, said = 0.0, []
        for kind, size in kinds.items():
            parts.append(_Part(_LOOKS[kind], start / widest, size / widest))
            start += size
            said.append((f"{gib(size)} {kind}", _LOOKS[kind]))
        if left < 0:
            parts.append(_Part("over", total / widest, -left / widest))
            said.append((f"{gib(-left)} too much", "over"))
        else:
            said.append((f"{gib(left)} free", "track"))
        sentence = f"Of {gib(total)}: {', '.join(text for text, _ in said)}."
        value: list[str] = [
            item for text, look in said for item in (_tag("span", _swatch(look), text, class_="key"), " ")
        ]
        bar = _bar(f"gpu-{number}", f"Memory of GPU {gpu.index}", sentence, parts)
        rows.append(_row(label, [*value, _tag("span", f"of {gib(total)}", class_="muted")], bar))
    extras = [kind for kind in _LOOKS if any(kinds.get(kind) for kinds in taken.values())]
    caption = "Used before the examination"
    if len(extras) > 1:
        caption += f", and what a job takes beside it: {' and '.join(extras[1:])}"
    return _chart("gpus", "GPU memory", f"{caption}.", rows)


_LOOKS = {"used": "used", "CUDA context": "context", "DeepSpeed buckets": "buckets"}


def _swatch(look: str) -> _Markup:
    return _tag("span", class_=f"swatch {look}", aria_hidden="true")


def _taken(gpu: Gpu, context: Mapping[str, int], buckets: Mapping[str, int]) -> dict[str, int]:
    """What of a GPU's memory is taken, or would be."""
    used = max((gpu.memory_total_bytes or 0) - (gpu.memory_free_bytes or 0), 0)
    device = f"cuda:{gpu.index}"
    return {
        "used": used,
        **({"CUDA context": context[device]} if device in context else {}),
        **({"DeepSpeed buckets": buckets[device]} if device in buckets else {}),
    }


def _measured(report: Report, key: str) -> dict[str, int]:
    """The largest number of this name that a trial measured, by device."""
    found: dict[str, int] = {}
    for check in report.checks:
        for trial in check.trials:
            for case in trial.cases:
                size = case.broken.measured.get(key) if case.broken else None
                if isinstance(size, int):
                    found[trial.device] = max(found.get(trial.device, 0), size)
    return found


def _buckets(report: Report) -> dict[str, int]:
    """What a finding says of the job's buckets, else what the trials tried of the defaults, by device."""
    gpus = report.facts.gpus.value.gpus if report.facts.gpus.value else ()
    found: dict[str, int] = {}
    for check in report.checks:
        for finding in check.findings:
            size = finding.evidence.get("bucket_bytes")
            if isinstance(size, int):
                about = finding.subject.gpu
                for index in [about] if about is not None else [gpu.index for gpu in gpus]:
                    found[f"cuda:{index}"] = max(found.get(f"cuda:{index}", 0), size)
    return found or _measured(report, "bucket_bytes")


class _Disk(NamedTuple):
    """One file system with room for models."""

    path: str
    free: int
    total: int | None
    caches: list[str]


def _disk_chart(report: Report) -> _Markup | None:
    disks = _disks(report)
    if not disks:
        return None
    model = report.facts.model.value
    missing = model.weight_bytes - model.cached_bytes if model is not None else 0
    marks, which = [*FP16_MODELS], "weights in fp16"
    if model is not None and missing > 0:
        marks, which = [(model.name, missing)], "not in the cache yet"
    largest = max(size for _, size in marks)
    # Beyond twice the largest model there is nothing to see: a full scale would hide the small disks.
    widest = min(max(largest * 1.2, *(disk.free for disk in disks), 0), largest * 2.0)
    rows = []
    for number, disk in enumerate(disks[:SLOWEST]):
        fits = ", ".join(f"{'room' if size <= disk.free else 'none'} for {name}" for name, size in marks)
        of = f" of {gb(disk.total)}" if disk.total is not None else ""
        if disk.free > widest:
            parts = [_Part("room", 0, 0.95), _Part("room", 0.96, 0.015), _Part("room", 0.985, 0.015)]
            more = " The bar is cut off."
        else:
            parts, more = [_Part("track", 0, 1), _Part("room", 0, disk.free / widest)], ""
        bar = _bar(
            f"disk-{number}",
            f"Room on {disk.path}",
            f"{gb(disk.free)} free{of}: {fits}.{more}",
            parts,
            [size / widest for _, size in marks],
        )
        use = _tag("span", f" for {', '.join(disk.caches)}", class_="muted") if disk.caches else ""
        value = [f"{gb(disk.free)} free{of}; {fits}"]
        rows.append(_row([_tag("code", disk.path), use], value, bar))
    legend = ", ".join(f"{name} {gb(size)}" for name, size in marks)
    more = f" {len(disks) - SLOWEST} more are among the facts." if len(disks) > SLOWEST else ""
    caption = f"The bars are free room, the lines models ({which}: {legend}).{more}"
    return _chart("disks", "Disk room against model sizes", caption, rows)


def _disks(report: Report) -> list[_Disk]:
    """Where models can be kept, each file system once; those that hold a cache first."""
    mounts, caches = report.facts.mounts.value, report.facts.hf_caches.value
    found: dict[object, _Disk] = {}
    for mount in mounts.mounts if mounts else ():
        if mount.free_bytes is None or mount.read_only or mount.writable is False or mount.kind == "memory":
            continue
        key = (mount.device, mount.total_bytes, mount.free_bytes)  # the same one may be at several places
        found.setdefault(key, _Disk(mount.path, mount.free_bytes, mount.total_bytes, []))
    for folder in caches.folders if caches else ():
        if folder.free_bytes is None:
            continue
        holder = mounts.of(folder.nearest) if mounts and folder.nearest else None
        if holder is not None:
            where: object = (holder.device, holder.total_bytes, holder.free_bytes)
        else:  # ~ tells no mount: the same room does
            free = folder.free_bytes
            same = (key for key, disk in found.items() if abs(disk.free - free) <= free // 1000)
            where = next(same, folder.path)
        disk = found.setdefault(where, _Disk(folder.path, folder.free_bytes, None, []))
        if folder.purpose != "elsewhere":
            disk.caches.append(folder.purpose)
    return sorted(found.values(), key=lambda disk: (not disk.caches, -disk.free))


def _trial_chart(report: Report) -> _Markup | None:
    trials = [trial for check in report.checks for trial in check.trials if trial.seconds > 0]
    trials.sort(key=lambda trial: -trial.seconds)
    if not trials:
        return None
    rows = []
    for number, trial in enumerate(trials[:SLOWEST]):
        did = f"{trial.seconds:.1f} s, {trial.status}"
        part = _Part(trial.status, 0, trial.seconds / trials[0].seconds)
        bar = _bar(f"trial-{number}", f"{trial.name} on {trial.device}", did, [part])
        rows.append(_row([_tag("strong", trial.name), f" on {trial.device}"], [did], bar))
    rest = trials[SLOWEST:]
    caption = f"{len(trials)} ran, {sum(trial.seconds for trial in trials):.1f} s in all."
    if rest:
        caption += f" The slowest {SLOWEST} are shown."
    return _chart("trials", "Trial times", caption, rows)


# --- Checks and facts -----------------------------------------------------------------------------------


def _checks(report: Report) -> _Markup:
    order = list(_OUTCOMES)
    ranked = sorted(enumerate(report.checks), key=lambda pair: order.index(pair[1].outcome))
    rows = []
    for number, check in ranked:
        look = "note" if check.outcome == "pass" and check.findings else check.outcome
        name = _tag("a", check.name, href=f"#check-{number}") if check.findings else check.name
        badge = _tag("span", _OUTCOMES[check.outcome], class_=f"badge {look}")
        rows.append(_tag("tr", _tag("th", name, scope="row"), _tag("td", badge), _tag("td", _why(check))))
    heads = _tag("tr", *(_tag("th", title, scope="col") for title in ("Check", "Outcome", "Why")))
    table = _tag("table", _tag("thead", heads), _tag("tbody", *rows))
    return _joined(_tag("div", table, class_="checks"), _cases(report))


def _why(check: CheckResult) -> str:
    devices: dict[tuple[str, str], list[str]] = {}
    for trial in check.trials:
        devices.setdefault((trial.name, trial.status), []).append(trial.device)
    tried = [f"{name}: {status} on {', '.join(on)}" for (name, status), on in devices.items()]
    found = [check.findings[0].message] if check.outcome == "findings" and not tried else []
    return "; ".join([*([check.reason] if check.reason else []), *tried, *found])


def _cases(report: Report) -> _Markup:
    rows = [
        {
            "trial": trial.name,
            "on": trial.device,
            "case": words.plain(case.combination),
            "status": case.status,
            "broken": words.arm_words(case.broken) if case.broken else "-",
            "fixed": words.arm_words(case.fixed) if case.fixed else "-",
            "reason": case.reason,
        }
        for check in report.checks
        for trial in check.trials
        for case in trial.cases
    ]
    if not rows:
        return _Markup()
    summary = _tag("summary", _tag("h3", "Trials, case by case"), f" {len(rows)}")
    return _tag("details", summary, _grid("Trials, case by case", rows), class_="fact")


def _facts(report: Report) -> _Markup:
    import msgspec

    facts = msgspec.to_builtins(report.facts)
    answers = msgspec.to_builtins(report.answers)
    box = _tag("input", type="search", id="search", autocomplete="off", aria_describedby="matches")
    search = _tag(
        "div",
        _tag("label", "Search the facts", for_="search"),
        box,
        _tag("output", for_="search", id="matches"),
        role="search",
        hidden="",
    )
    asked = [_tag("h3", "Answers of the installed libraries"), *_each(answers, "h4")] if answers else []
    return _joined(search, *_each(facts, "h3"), *asked)


def _each(facts: Mapping[str, Mapping[str, Any]], heading: str) -> Iterator[_Markup]:
    for name, fact in facts.items():
        title = _tag(heading, name.replace("_", " "))
        if fact["status"] == "ok":
            value = fact["value"]
            inner = _fields(value if isinstance(value, dict) else {name: value})
            brief = f" {fact['source']}, {fact['seconds']:.2f} s"
        else:
            inner = _tag("p", f"Asked: {fact['source']}, {fact['seconds']:.2f} s")
            brief = f" unavailable: {fact['reason']}"
        summary = _tag("summary", title, _tag("span", brief, class_="muted"))
        yield _tag("details", summary, inner, class_="fact")


def _fields(value: Mapping[str, Any]) -> _Markup:
    """A mapping: what fits a line in one list, longer mappings and tables under it."""
    rows, under = [], []
    for key, item in value.items():
        if isinstance(item, dict) and len(item) > FEW:
            under.append(_tag("p", _tag("strong", key), f" {len(item)}"))
            under.append(_fields(item))
        elif isinstance(item, (list, tuple)) and item and all(isinstance(it, dict) for it in item):
            under.append(_grid(key, item))
        else:
            for name, text in _in_words(key, item):
                body = _tag("pre", text) if "\n" in text else _joined(text)
                rows.append(_tag("div", _tag("dt", name), _tag("dd", body)))
    lists = [_tag("dl", *rows, class_="many" if len(rows) >= MANY else None)] if rows else []
    return _joined(*lists, *under)


def _in_words(key: str, item: Any) -> Iterator[tuple[str, str]]:
    """A field's name and value as all formats say them; none for what holds nothing."""
    for line in words.shown({key: item}):
        name = key if line.startswith(f"{key}: ") else key[: -len("_bytes")]
        yield name, line[len(name) + 2 :].lstrip("\n")


def _grid(title: str, items: Sequence[Mapping[str, Any]]) -> _Markup:
    """A table of like things, turned so that its longer side goes down the page."""
    keys = [key for key in dict.fromkeys(key for item in items for key in item) if _told(key, items)]
    if not keys:
        return _Markup()
    cells = [[dict(_in_words(key, item.get(key))) for key in keys] for item in items]
    texts = [["".join(cell.values()) for cell in line] for line in cells]
    heads = [next(name for line in cells for name in line[number]) for number in range(len(keys))]
    if len(keys) > len(items):
        texts = [list(line) for line in zip(*texts)]
        first = texts.pop(0)
        rows = [
            _tag("tr", _tag("th", head, scope="row"), *_cells(line)) for head, line in zip(heads[1:], texts)
        ]
        heads = [heads[0], *first]
    else:
        rows = [_tag("tr", _tag("th", line[0], scope="row"), *_cells(line[1:])) for line in texts]
    top = _tag("tr", *(_tag("th", head, scope="col") for head in heads))
    table = _tag("table", _tag("caption", title), _tag("thead", top), _tag("tbody", *rows))
    # What scrolls sideways must be reached by the keyboard.
    return _tag("div", table, class_="scroll", tabindex=0, role="group", aria_label="Table")


def _told(key: str, items: Sequence[Mapping[str, Any]]) -> bool:
    return any(item.get(key) is not None for item in items)


def _cells(texts: Iterable[str]) -> Iterator[_Markup]:
    return (_tag("td", text) for text in texts)


_STYLE = """
:root {
  --page: #f6f7f9; --card: #ffffff; --text: #1b2026; --muted: #565f6a; --line: #d5dae1; --link: #0b57b0;
  --error: #b3261e; --warning: #855300; --note: #0b57b0; --pass: #1a6e34;
  --track: #e4e8ed; --used: #5f6b7a; --context: #7b3fc4; --buckets: #b85c00; --code: #eef1f4;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --card: #1a2027; --text: #e7ebf0; --muted: #a3adb9; --line: #343d48; --link: #83b8ff;
    --error: #ff9087; --warning: #f2bb50; --note: #83b8ff; --pass: #74d493;
    --track: #303944; --used: #98a5b5; --context: #bd98f5; --buckets: #f59b45; --code: #11161b;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; max-width: 66rem; padding: 1.25rem clamp(0.9rem, 4vw, 2.5rem) 4rem;
  background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -999rem; background: var(--card); padding: 0.5rem 1rem; }
.skip:focus { left: 1rem; top: 0.5rem; }
.muted { color: var(--muted); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 0.88em; }
pre { margin: 0; white-space: pre-wrap; }
h1, h2, h3, h4 { line-height: 1.25; }
h2 { margin: 2.5rem 0 0.9rem; font-size: 1.35rem; }
h3 { margin: 0; font-size: 1.05rem; }
h4 { margin: 0; font-size: 1rem; }
p { margin: 0.35rem 0; }
ul { margin: 0.35rem 0; padding-left: 1.25rem; }

header { --verdict: var(--warning); padding: 1.1rem clamp(1rem, 3vw, 1.6rem) 1.2rem; background: var(--card);
  border: 1px solid var(--line); border-top: 5px solid var(--verdict); border-radius: 10px; }
header.pass { --verdict: var(--pass); }
header.fail { --verdict: var(--error); }
h1 { display: flex; flex-wrap: wrap; align-items: center; gap: 0.2rem 0.7rem; margin: 0.2rem 0 0.7rem;
  font-size: clamp(1.7rem, 5vw, 2.3rem); }
h1 .symbol { display: inline-grid; place-items: center; width: 1.35em; height: 1.35em; border-radius: 50%;
  background: var(--verdict); color: var(--card); font-size: 0.75em; }
h1 .verdict { color: var(--verdict); }
h1 .counts { font-size: 1.05rem; font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.3rem; margin-top: 0.9rem; padding: 0;
  list-style: none; }

article, figure, .fact { margin: 0 0 0.9rem; padding: 0.95rem 1.1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
article { border-left: 5px solid var(--note); }
article.error { border-left-color: var(--error); }
article.warning { border-left-color: var(--warning); }
article .message { font-size: 1.05rem; }
.badge { display: inline-block; padding: 0 0.5em; border: 1px solid; border-radius: 1em; color: var(--muted);
  font-size: 0.82rem; font-weight: 600; line-height: 1.5; white-space: nowrap; }
.badge.error, .badge.findings { color: var(--error); }
.badge.warning, .badge.crashed, .badge.timeout { color: var(--warning); }
.badge.note { color: var(--note); }
.badge.pass { color: var(--pass); }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 0.15rem 0.9rem; margin: 0.5rem 0; }
dl > div { display: contents; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
dl.many { display: block; columns: 16rem; column-gap: 2rem; }
dl.many > div { display: grid; grid-template-columns: 3fr 2fr; gap: 0.9rem; break-inside: avoid; }
.fix { margin-top: 0.7rem; }
.fix pre { padding: 0.6rem 0.75rem; background: var(--code); border: 1px solid var(--line);
  border-radius: 6px; }
button { float: right; margin-left: 0.6rem; padding: 0.15rem 0.7rem; background: var(--card);
  color: var(--link); border: 1px solid currentColor; border-radius: 5px; font: inherit; font-size: 0.85rem;
  cursor: pointer; }
details > summary { cursor: pointer; }
article details { margin-top: 0.6rem; }
article summary { color: var(--link); }
article details > :not(summary) { margin-left: 1rem; }

figcaption p { margin: 0.1rem 0 0.7rem; }
.chart ul { padding: 0; list-style: none; }
.chart li { margin-top: 0.8rem; }
.chart li > div { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1.2rem; }
.chart .value { font-variant-numeric: tabular-nums; }
.chart .value:has(.key) { flex-basis: 100%; }
.key { display: inline-block; margin-right: 0.7rem; white-space: nowrap; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.35em; border-radius: 2px; }
svg { display: block; margin-top: 0.15rem; }
rect { stroke: var(--card); stroke-width: 1px; }
.track { fill: var(--track); background: var(--track); stroke: var(--muted); outline: 1px solid var(--muted);
  outline-offset: -1px; }
.used { fill: var(--used); background: var(--used); }
.context { fill: var(--context); background: var(--context); }
.buckets { fill: var(--buckets); background: var(--buckets); }
.over, rect.reproduced { fill: var(--error); background: var(--error); }
rect.room { fill: var(--note); }
rect.refuted { fill: var(--pass); }
rect.inconclusive { fill: var(--warning); }
rect.not-run { fill: var(--used); }
.mark { stroke: var(--text); stroke-width: 2px; }

table { width: 100%; border-collapse: collapse; }
caption { padding: 0.5rem 0 0.2rem; font-weight: 600; text-align: left; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: pre-line; }
thead th { color: var(--muted); font-weight: 600; }
tbody th { font-weight: 500; }
.checks { margin-bottom: 0.9rem; padding: 0.3rem 1.1rem 0.7rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
.checks th:first-child { width: 32%; }
.checks thead th, .checks td:nth-child(2) { overflow-wrap: normal; }
.checks tbody tr:last-child > * { border-bottom: 0; }
.scroll { overflow-x: auto; }
.scroll td, .scroll th { min-width: 5.5rem; overflow-wrap: normal; }
.fact { padding: 0.5rem 1.1rem; margin-bottom: 0.4rem; }
.fact > summary h3, .fact > summary h4 { display: inline; }
#facts > h3 { margin: 1.4rem 0 0.6rem; }
[role=search] { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 0.8rem;
  margin-bottom: 0.8rem; }
[hidden] { display: none !important; }
input { flex: 1 1 14rem; max-width: 28rem; padding: 0.45rem 0.7rem; background: var(--card);
  color: var(--text); border: 1px solid var(--muted); border-radius: 6px; font: inherit; }

@media (max-width: 40rem) {
  .checks table, .checks tbody, .checks tr { display: block; }
  .checks thead { position: absolute; left: -999rem; }
  .checks tbody tr { display: flex; flex-wrap: wrap; gap: 0 0.7rem; padding: 0.4rem 0;
    border-bottom: 1px solid var(--line); }
  .checks tbody :is(th, td) { width: auto !important; padding: 0; border: 0; }
  .checks td:last-child { flex-basis: 100%; }
}
@media print {
  body { max-width: none; padding: 0; background: none; font-size: 9.5pt; }
  nav, button, [role=search], .skip { display: none !important; }
  article, figure, .fact, header { break-inside: avoid-page; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  .fact { break-inside: auto; }
  h2, h3, summary { break-after: avoid; }
  tr, li { break-inside: avoid; }
  details::details-content { content-visibility: visible; display: block; block-size: auto; }
  .scroll { overflow: visible; }
  .scroll td, .scroll th { min-width: 0; padding-right: 0.4rem; font-size: 7.5pt; }
  .scroll td { overflow-wrap: anywhere; }
  dl.many { columns: 11rem; font-size: 8pt; }
}
"""

_SCRIPT = """
"use strict";
if (navigator.clipboard) {
  for (const pre of document.querySelectorAll("pre.copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent);
        button.textContent = "Copied";
      } catch (error) {
        getSelection().selectAllChildren(pre);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    pre.previousElementSibling.prepend(button);
  }
}
if (location.protocol === "about:") {
  // In a notebook's frame #facts would be a place in the notebook, and load it here.
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.hash).scrollIntoView();
    });
  }
}
const box = document.getElementById("search");
const facts = Array.from(document.querySelectorAll("#facts details"), (element) => ({
  element,
  title: element.querySelector("summary").textContent.toLowerCase(),
  rows: Array.from(element.querySelectorAll("dl > div, tbody tr, :scope > p"), (row) => (
    { row, text: row.textContent.toLowerCase() })),
}));
box.closest("[role=search]").hidden = false;
box.addEventListener("input", () => {
  const asked = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let found = 0;
  for (const { element, title, rows } of facts) {
    let here = 0;
    for (const { row, text } of rows) {
      row.hidden = !asked.every((word) => text.includes(word) || title.includes(word));
      here += !row.hidden;
    }
    element.hidden = asked.length > 0 && here === 0;
    element.open = asked.length > 0 && here > 0;
    found += here;
  }
  document.getElementById("matches").textContent = asked.length ? found + " found" : "";
});
"""
