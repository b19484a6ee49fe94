"""The figures of a run beside their targets, and as a table."""

KIB = 1024


def memory_kib(figures):
    return sum(row["pss_kib"] for row in figures.values())


def bytes_per_stream(outcome, round_="first"):
    """User-space memory over what the empty server had, by process."""
    empty, there = outcome["empty"], outcome[round_]
    held = max(1, there["opening"]["held"])
    return {name: round((row["pss_kib"] - empty.get(name, {"pss_kib": 0})["pss_kib"]) * KIB / held, 1)
            for name, row in there["memory"].items()}


def targets(outcome):
    """Rows: what, most or least, target, measured."""
    first, requests = outcome["first"], outcome["requests"]
    opening = first["opening"]
    rows = [("streams held", ">=", outcome["asked"], opening["held"]),
            ("streams that failed to open", "<=", 0, sum(opening["failed"].values())),
            ("streams opened per second", ">=", 4000, opening["per_second"]),
            ("server CPU per open, us", "<=", 94, round(sum(opening["cpu_us_per_open"].values()), 1)),
            ("server memory per stream (PSS), bytes", "<=", 1126, round(sum(bytes_per_stream(outcome).values())))]
    for phase, most in (("opening", 20), ("held", 5), ("groups", 5)):
        if requests.get(phase, {}).get("count"):
            rows.append((f"plain request p99, {phase}, ms", "<=", most, requests[phase]["p99_ms"]))
            rows.append((f"plain requests failed, {phase}", "<=", 0, requests[phase]["failed"]))
    if "groups" in first:
        groups, everyone = first["groups"], first["everyone"]
        rows += [(f"delivery to a group of {groups['streams_per_group']:,}, p99 ms", "<=", 100,
                  groups["latency"].get("p99_ms")),
                 ("deliveries to groups that are missing", "<=", 0, groups["expected"] - groups["received"]),
                 ("streams that do not hear a message to everybody", "<=", 0,
                  everyone["expected"] - everyone["received"]),
                 ("messages out of order or doubled", "<=", 0,
                  sum(m[key] for m in (groups, everyone) for key in ("gaps", "repeats")))]
    before, after = memory_kib(outcome["empty"]), memory_kib(first["left"]["memory"])
    rows.append(("memory when all have left, by memory before", "<=", 1.2, round(after / before, 2)))
    if "second" in outcome:
        again = memory_kib(outcome["second"]["memory"]) / memory_kib(first["memory"])
        rows += [("streams held, second round", ">=", outcome["asked"], outcome["second"]["opening"]["held"]),
                 ("memory of the second round, by the first", "<=", 1.02, round(again, 3))]
    return [{"what": what, "sign": sign, "target": target, "measured": measured,
             "met": measured is not None and (measured <= target if sign == "<=" else measured >= target)}
            for what, sign, target, measured in rows]


def number(value):
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return "-" if value is None else f"{value:,}"


def table(outcome):
    """The targets and the memory as Markdown."""
    lines = ["| | target | measured | met |", "|---|---|---|---|"]
    for row in outcome["targets"]:
        lines.append(f"| {row['what']} | {row['sign']} {number(row['target'])} | {number(row['measured'])} | "
                     f"{'yes' if row['met'] else '**no**'} |")
    lines += ["", "| process | number | empty, MiB | held, MiB | all have left, MiB | bytes per stream |",
              "|---|---|---|---|---|---|"]
    per = bytes_per_stream(outcome)
    for name, row in outcome["first"]["memory"].items():
        mib = [figures.get(name, {"pss_kib": 0})["pss_kib"] / KIB
               for figures in (outcome["empty"], outcome["first"]["memory"], outcome["first"]["left"]["memory"])]
        lines.append(f"| {name} | {row['processes']} | " + " | ".join(f"{m:,.1f}" for m in mib) +
                     f" | {number(per[name])} |")
    return "\n".join(lines)
