"""Every reason code of this library with its sentence, English and Chinese, and how parameters are made human.

A parameter's name carries its unit: ``_s`` seconds, ``_bytes``, ``_ratio`` (0 to 1).
"""

from collections.abc import Mapping

ENGLISH: dict[str, str] = {
    # hard: at once
    "input.recent": "in use (key or mouse {age_s} ago on {seat}); lent after {limit_s} without input",
    "terminal.recent": "in use (key pressed {age_s} ago in terminal {terminal}); lent after {limit_s} without input",
    "session.changed": "a desktop session began or ended {age_s} ago; lent after {limit_s} without input",
    "session.woke": "woke from sleep {age_s} ago; lent after {limit_s} without input",
    "probe.missing": "counts as in use: {probe} cannot be read ({problem}); {advice}",
    "probe.stale": "counts as in use: {probe} was last read {age_s} ago, more than {limit_s} ({problem}); {advice}",
    # soft: two thresholds and a latch
    "load.cpu": "other programs use {used_ratio} of the processors; lent when their average over {calm_s} is below {limit_ratio}",
    "memory.short": "memory is short ({free_bytes} free of {total_bytes}); lent when {limit_ratio} is free",
    "memory.stalled": "programs wait for memory {stalled_ratio} of the time; lent when this is below {limit_ratio}",
    # policy
    "power.battery": "runs on battery; lent when it is plugged in",
    # settling
    "settling.grace": "quiet for {age_s}; lent after {limit_s}",
    "settling.measuring": "measuring how busy the processors are; lent after {limit_s} of quiet",
    "settling.unattended": "no keyboard to watch; no terminal has been in use for {age_s}, lent after {limit_s}",
    # idle
    "idle.input": "idle: no key or mouse for {age_s}",
    "idle.terminal": "idle: no keyboard to watch, and no terminal in use for {age_s}",
    "idle.unattended": "idle: by its policy nobody sits at this machine",
    "idle.load": "other programs use {used_ratio} of the processors",
}

CHINESE: dict[str, str] = {
    "input.recent": "正在使用（{seat} 上 {age_s} 前有键盘或鼠标输入）；连续 {limit_s} 无输入后出借",
    "terminal.recent": "正在使用（终端 {terminal} 上 {age_s} 前有按键）；连续 {limit_s} 无输入后出借",
    "session.changed": "{age_s} 前有桌面会话开始或结束；连续 {limit_s} 无输入后出借",
    "session.woke": "{age_s} 前从睡眠中唤醒；连续 {limit_s} 无输入后出借",
    "probe.missing": "视为正在使用：无法读取 {probe}（{problem}）；{advice}",
    "probe.stale": "视为正在使用：{probe} 最近一次读取是在 {age_s} 前，超过 {limit_s}（{problem}）；{advice}",
    "load.cpu": "其他程序占用 {used_ratio} 的处理器；{calm_s} 内的平均值低于 {limit_ratio} 后出借",
    "memory.short": "内存不足（共 {total_bytes}，可用 {free_bytes}）；可用 {limit_ratio} 后出借",
    "memory.stalled": "程序有 {stalled_ratio} 的时间在等待内存；低于 {limit_ratio} 后出借",
    "power.battery": "正在使用电池；接通电源后出借",
    "settling.grace": "已安静 {age_s}；满 {limit_s} 后出借",
    "settling.measuring": "正在测量处理器的忙碌程度；安静 {limit_s} 后出借",
    "settling.unattended": "没有可监视的键盘；已有 {age_s} 没有终端被使用，满 {limit_s} 后出借",
    "idle.input": "空闲：已有 {age_s} 没有键盘或鼠标输入",
    "idle.terminal": "空闲：没有可监视的键盘，且已有 {age_s} 没有终端被使用",
    "idle.unattended": "空闲：按策略，没有人坐在这台机器前",
    "idle.load": "其他程序占用 {used_ratio} 的处理器",
}


def render(code: str, params: Mapping[str, str | float], templates: Mapping[str, str] = ENGLISH) -> str:
    """The code's sentence with human units; the bare code where the template or a parameter is unknown."""
    template = templates.get(code)
    if template is None:
        return code
    try:
        return template.format_map({name: human(name, value) for name, value in params.items()})
    except KeyError:
        return code


def human(name: str, value: str | float) -> str:
    """``age_s=125`` becomes ``2 min 5 s``, ``used_ratio=0.5`` becomes ``50 %``."""
    if isinstance(value, str):
        return value
    if name.endswith("_s"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_ratio"):
        return f"{value * 100:.0f} %"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """``4 s``, ``2 min 5 s``, ``3 h 10 min``; two units at most."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size_s)
        parts.append(f"{count} {unit}" if count else "")
        if not parts[0]:
            parts.clear()
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def size(size_bytes: float) -> str:
    """``1.5 GiB``; whole numbers below 1 KiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"
